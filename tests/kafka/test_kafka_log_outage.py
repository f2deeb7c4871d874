"""What brokers do to the log when they stop answering or die: nothing is lost and nothing happens twice."""

from __future__ import annotations

import threading
from random import Random

import pytest

from sagakit.ports.log import TopicPartition
from sagakit.testing.fixtures import StartServer
from sagakit.testing.kafka import KafkaCluster
from tests.contract.worlds import PARTITIONS, KafkaWorld, values
from tests.kafka.counter import Counter

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def publish(world: KafkaWorld, numbers: range) -> None:
    for partition in range(PARTITIONS):
        world.publish(world.inbox, partition, *(b"%d" % number for number in numbers))


def run_until_done(world: KafkaWorld, counter: Counter, each: int) -> None:
    """Cycle until every record was counted, and counted once."""
    random = Random(0)
    while any(len(world.visible(world.out, partition)) < each for partition in range(PARTITIONS)):
        for _ in range(5):
            counter.cycle(random)
    for partition in range(PARTITIONS):
        expected = [b"%d %d" % (number + 1, number) for number in range(each)]
        assert values(world.visible(world.out, partition)) == expected


def test_a_broker_that_stops_answering_for_longer_than_a_transaction_may_last(
    start_server: StartServer, topic_prefix: str
) -> None:
    """Rule 16: sessions and transactions time out, outcomes are lost, leader epochs move on; it finds its way back."""
    cluster = start_server(KafkaCluster(1))
    world = KafkaWorld(cluster.client_properties(), topic_prefix)
    counter = Counter(world, "a")
    counter.until_restored(*(TopicPartition(world.inbox, number) for number in range(PARTITIONS)))
    publish(world, range(30))
    counter.until(lambda: counter.records)  # taken, not committed yet
    cluster.pause_broker(1)
    answers_again = threading.Timer(14, cluster.resume_broker, [1])
    answers_again.start()
    random = Random(0)
    while answers_again.is_alive():
        counter.cycle(random)
    publish(world, range(30, 40))
    run_until_done(world, counter, 40)
    world.close()
