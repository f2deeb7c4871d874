"""What only three brokers show: one of them dies, and the work goes on. They run as long as this module does."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.ports.log import LogUnavailableError, TopicPartition
from sagakit.testing.kafka import KafkaCluster
from tests.contract.worlds import PARTITIONS, KafkaWorld
from tests.kafka.counter import Counter
from tests.kafka.test_kafka_log_outage import publish, run_until_done
from tests.kafka.test_servers import QUIET, create_topic, produce, read_to_end

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NOTICED_S = 6
"""By then the controller has taken a dead broker's leaderships away."""


def test_three_brokers_survive_the_death_of_one(kafka3: KafkaCluster, topic_prefix: str) -> None:
    topic = f"{topic_prefix}records"
    create_topic(kafka3, topic)
    produce(kafka3, topic, b"before")
    metadata = AdminClient({**kafka3.client_properties(), **QUIET}).list_topics(topic, timeout=30)
    assert set(metadata.brokers) == {1, 2, 3}
    assert len(metadata.topics[topic].partitions[0].replicas) == 3
    leader = metadata.topics[topic].partitions[0].leader
    kafka3.kill_broker(leader)
    try:
        produce(kafka3, topic, b"without the leader")
        assert read_to_end(kafka3, topic) == [b"before", b"without the leader"]
    finally:
        kafka3.start_broker(leader)
    produce(kafka3, topic, b"after")
    assert read_to_end(kafka3, topic) == [b"before", b"without the leader", b"after"]


def test_a_broker_of_three_that_dies_while_transactions_run(kafka3: KafkaCluster, topic_prefix: str) -> None:
    world = KafkaWorld(kafka3.client_properties(), topic_prefix)
    counter = Counter(world, "a")
    counter.until_restored(*(TopicPartition(world.inbox, number) for number in range(PARTITIONS)))
    publish(world, range(30))
    counter.until(lambda: counter.records)
    victim = 2
    kafka3.kill_broker(victim)
    try:
        publish(world, range(30, 60))
        run_until_done(world, counter, 60)
    finally:
        world.close()
        kafka3.start_broker(victim)


def test_what_a_dead_leader_does_not_tell_is_never_taken_for_an_offset(kafka3: KafkaCluster, topic_prefix: str) -> None:
    """The client gives -1001 without an error then: as the end of the state it would restore nothing at all."""
    topic = f"{topic_prefix}alone"
    admin = AdminClient({**kafka3.client_properties(), **QUIET})
    admin.create_topics([NewTopic(topic, 6, replication_factor=1)])[topic].result(timeout=30)
    partitions = [TopicPartition(topic, number) for number in range(6)]
    offsets = Offsets(ClientProperties({**kafka3.client_properties(), **QUIET}))
    assert offsets.ends(partitions) == dict.fromkeys(partitions, 0)
    victim = 3
    led = [one for one in partitions if _leader(admin, one) == victim]
    kafka3.kill_broker(victim)
    try:
        for ask in (offsets.ends, offsets.starts):
            with pytest.raises(LogUnavailableError, match="are not known"):
                ask(led, timeout_s=1)
        with pytest.raises(LogUnavailableError, match="are not known"):
            offsets.ends(led, timeout_s=NOTICED_S)
        assert offsets.known_ends(led, timeout_s=1) == {}
        assert offsets.ends(set(partitions) - set(led)) == dict.fromkeys(set(partitions) - set(led), 0)
    finally:
        kafka3.start_broker(victim)
    # Only these, of which the client last heard that they have no leader: it says so again without asking anybody.
    assert offsets.ends(led) == dict.fromkeys(led, 0)
    assert offsets.ends(partitions) == dict.fromkeys(partitions, 0)


def _leader(admin: AdminClient, partition: TopicPartition) -> int:
    topic = admin.list_topics(partition.topic, timeout=30).topics[partition.topic]
    return int(topic.partitions[partition.partition].leader)
