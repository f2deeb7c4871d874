"""A process purges what it consumed, beside its work."""

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from structlog.testing import capture_logs

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.app.purging import purging
from sagakit.ports.log import TopicPartition as Partition
from sagakit.testing.kafka import KafkaServer
from tests.waiting import until

TWO_DAYS_AGO_MS = 1_000_000_000_000
"""Long ago: consumed records of that age may go."""

pytestmark = pytest.mark.kafka


def test_what_was_consumed_and_is_old_goes_and_what_is_unread_stays(kafka: KafkaServer, topic_prefix: str) -> None:
    topic, group = f"{topic_prefix}inbox", f"{topic_prefix}group"
    client: dict[str, str | int | float | bool] = {"bootstrap.servers": kafka.bootstrap}
    admin = AdminClient(client)
    admin.create_topics([NewTopic(topic, 1, 1, config={"retention.ms": "-1"})])[topic].result()
    producer = Producer(client)
    for number in range(5):
        producer.produce(topic, b"%d" % number, partition=0, timestamp=TWO_DAYS_AGO_MS)
    producer.flush()
    consumer = Consumer({**client, "group.id": group, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    consumer.close()
    offsets = Offsets(ClientProperties(client))

    with capture_logs() as logs, purging(ClientProperties(client), group, [topic]):
        until(lambda: offsets.starts([Partition(topic, 0)])[Partition(topic, 0)] == 3, timeout_s=30, what="the purge")
        until(lambda: any(log["event"] == "purged" for log in logs), timeout_s=30, what="the log line")

    assert [(log["log_start"], log["partition"]) for log in logs if log["event"] == "purged"] == [(3, 0)]
