"""What the engine needs of the world, as protocols; `sagakit.adapters` and `sagakit.testing` implement them."""
