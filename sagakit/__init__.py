"""Sagas on Kafka that are exactly-once, compensate correctly and can be operated at 3 a.m."""
