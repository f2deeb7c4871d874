"""Servers, processes and fixtures for tests: a real Kafka, a real registry, and the embedded pair.

Each is a context manager; `sagakit.testing.fixtures` has them as pytest fixtures. The real ones are `KafkaCluster` and
`RealRegistry` (they need Java), the embedded ones `EmbeddedPair` (they need nothing, and prove less).
"""

from sagakit.testing.embedded import EmbeddedKafka as EmbeddedKafka
from sagakit.testing.embedded import EmbeddedPair as EmbeddedPair
from sagakit.testing.kafka import KafkaCluster as KafkaCluster
from sagakit.testing.registry import RealRegistry as RealRegistry
