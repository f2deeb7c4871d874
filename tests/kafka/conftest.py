"""What the tests of the Kafka adapters share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sagakit.testing.kafka import KafkaServer
from tests.contract.worlds import KafkaWorld


@pytest.fixture
def world(kafka: KafkaServer, topic_prefix: str) -> Iterator[KafkaWorld]:
    """A real broker, with topics and a group of this test's own."""
    one = KafkaWorld(kafka.client_properties(), topic_prefix)
    yield one
    one.close()
