"""Proofs on a real Kafka with real processes: `python -m tests.prove PART`; the tests run the small form of each."""
