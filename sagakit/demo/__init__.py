"""The demo: the example shop takes hundreds of orders, and its books are audited against what the sagas say."""
