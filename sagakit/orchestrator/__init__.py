"""The loop that runs sagas exactly once."""
