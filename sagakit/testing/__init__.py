"""Servers, processes and fixtures for tests: a real Kafka, a real registry, and the embedded pair."""
