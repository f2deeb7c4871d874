"""Purging on a real broker: only what was consumed, and only what is old enough."""

from __future__ import annotations

import time

import confluent_kafka
import pytest
from confluent_kafka import Consumer, Producer

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.purge import Purge
from sagakit.adapters.topics import TopicAdmin, WantedTopic
from sagakit.ports.log import TopicPartition
from sagakit.testing.kafka import KafkaServer

pytestmark = pytest.mark.kafka

HOUR_MS = 3_600_000


def test_rule_4_only_consumed_records_older_than_a_day_are_deleted(kafka: KafkaServer, topic_prefix: str) -> None:
    """Rule 4: what nobody has read must not go, and a lost offset must be loud."""
    properties = ClientProperties(kafka.client_properties())
    topic, group = f"{topic_prefix}inbox", f"{topic_prefix}group"
    wanted = WantedTopic(name=topic, partitions=3, partitions_if_new=3, replication=1, config={"retention.ms": "-1"})
    TopicAdmin(properties).create([wanted])
    now_ms = int(time.time() * 1000)
    producer = Producer({**kafka.client_properties(), "acks": "all"})
    ages_h = [72, 50, 25, 23, 1]
    for partition in range(3):
        for age_h in ages_h:
            producer.produce(topic, b"v", partition=partition, timestamp=now_ms - age_h * HOUR_MS)
    assert producer.flush(30) == 0
    consumer = Consumer({**kafka.client_properties(), "group.id": group})
    # All of partition 0 is consumed, two records of partition 1, nothing of partition 2.
    committed = [confluent_kafka.TopicPartition(topic, 0, 5), confluent_kafka.TopicPartition(topic, 1, 2)]
    consumer.commit(offsets=committed, asynchronous=False)
    consumer.close()

    purge = Purge(properties, group)
    moved = {TopicPartition(topic, 0): 3, TopicPartition(topic, 1): 2}
    assert purge.run([topic], now_ms) == moved
    assert Offsets(properties).starts([TopicPartition(topic, n) for n in range(3)]) == {
        **moved,
        TopicPartition(topic, 2): 0,
    }
    assert purge.run([topic], now_ms) == {}
    assert purge.run([topic], now_ms, keep_ms=0) == {TopicPartition(topic, 0): 5}
    purge.close()
