"""Transactions on a real broker: fences, refused records, lost outcomes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

import confluent_kafka
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import NewTopic

from sagakit.adapters.kafka_producer import TransactionalProducer
from sagakit.ports.log import Aborted, Committed, LogUnavailableError, Outgoing, TopicPartition, Unknown, Work
from sagakit.testing.process import Process
from tests.contract.worlds import PARTITIONS, Driver, KafkaWorld, offsets_after, values, work_of

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]


def running(world: KafkaWorld, instance: str = "a") -> Driver:
    driver = Driver(world.open(instance))
    driver.log.subscribe([world.inbox])
    driver.until_restored(*(inbox(world, number) for number in range(PARTITIONS)))
    return driver


def inbox(world: KafkaWorld, number: int) -> TopicPartition:
    return TopicPartition(world.inbox, number)


def test_rules_2_and_24_a_stale_generation_is_fenced_and_the_same_work_with_a_fresh_one_commits(
    world: KafkaWorld,
) -> None:
    """Rules 2 and 24: also when the work carries only an unchanged offset, as that of timers does."""
    members = [Consumer({**world.plain, "group.id": world.group, "auto.offset.reset": "earliest"}) for _ in range(2)]
    first, second = members
    first.subscribe([world.inbox])
    while not first.assignment():
        first.poll(0.1)
    stale = first.consumer_group_metadata()
    second.subscribe([world.inbox])
    # Both, and shared out: within the rebalance the first has nothing for a moment, when the second may have its part.
    while not (first.assignment() and second.assignment() and len(first.assignment()) < PARTITIONS):
        first.poll(0.1)
        second.poll(0.1)

    producer = TransactionalProducer(world.properties, f"{world.prefix}stale", frozenset())
    record = Outgoing(world.out, 0, b"timer", b"fired", ())
    unchanged = [confluent_kafka.TopicPartition(world.inbox, first.assignment()[0].partition, 0)]
    outcome = producer.write([record], unchanged, lambda: stale)
    assert isinstance(outcome, Aborted)
    assert "generation" in outcome.reason
    assert world.visible(world.out, 0) == []
    assert producer.write([record], unchanged, first.consumer_group_metadata) == Committed()
    assert values(world.visible(world.out, 0)) == [b"fired"]
    producer.close()
    for member in members:
        member.close()


def test_rule_2_a_timer_in_a_partition_that_nobody_has_read_yet_commits_its_first_offset(world: KafkaWorld) -> None:
    """Rule 2: what the client tells of such a partition is no offset, which it would leave out of the transaction."""
    driver = running(world)
    partition = inbox(world, 2)
    assert world.committed(partition) is None
    record = Outgoing(world.out, 2, b"timer", b"fired", ())
    assert driver.log.commit(Work(records=[record], offsets={partition: driver.restored[partition]})) == Committed()
    assert world.committed(partition) == 0


@pytest.mark.slow
@pytest.mark.parametrize("timers_only", [False, True], ids=["records", "timers"])
def test_rules_3_and_16_a_stopped_process_cannot_commit_after_it_lost_its_partitions(
    world: KafkaWorld, tmp_path: Path, timers_only: bool
) -> None:
    """Rules 3 and 16: stopped with its transaction open, it outlives its session and wakes up when another owns all.

    The timer case writes nothing that a restore looks at, so only the group's fence can stop it.
    """
    world.publish(world.inbox, 0, b"1", b"2")
    settings = {
        "properties": dict(world.plain),
        "group": world.group,
        "transactional_id": f"{world.prefix}zombie",
        "inbox": world.inbox,
        "state": world.state,
        "out": world.out,
        "timers_only": timers_only,
    }
    stop = {"SAGAKIT_FAILPOINTS": "orchestrator.transaction-open=stop@1:1:limit=1"}
    stop["SAGAKIT_FAILPOINT_LOG"] = str(tmp_path / "failpoints")
    command = [sys.executable, "-m", "tests.kafka.log_instance", json.dumps(settings)]
    with Process.start("zombie", command, log_directory=tmp_path, environment=stop, working_directory=ROOT) as zombie:
        zombie.wait_until((tmp_path / "failpoints").exists, timeout_s=60, what="stopped with its transaction open")
        assert any(has_open_transaction(world, world.out, number) for number in range(PARTITIONS))
        heir = running(world, "heir")
        heir.until(lambda: len(heir.records) == 2)
        assert heir.log.commit(work_of(world, heir.take())) == Committed()
        zombie.resume()
        outcome = zombie.wait_for_line(r"^outcome (\w+) ", timeout_s=60)
    assert outcome[1] in {"Aborted", "Unknown"}, outcome[0]
    assert [value for n in range(PARTITIONS) for value in values(world.visible(world.out, n))] == [b"1", b"2"]
    assert values(world.visible(world.state, 0)) == [b"1", b"2"]


def has_open_transaction(world: KafkaWorld, topic: str, partition: int) -> bool:
    """Whether the broker holds records there that are neither committed nor aborted."""
    ends = []
    for isolation in ("read_committed", "read_uncommitted"):
        reader = Consumer({**world.plain, "group.id": "onlooker", "isolation.level": isolation})
        ends.append(reader.get_watermark_offsets(confluent_kafka.TopicPartition(topic, partition), timeout=10)[1])
        reader.close()
    return ends[0] < ends[1]


def test_rule_11_a_full_queue_aborts_the_whole_cycle(kafka_world_with_small_queue: KafkaWorld) -> None:
    """Rule 11: a record that was never queued must not be missing from a committed cycle."""
    world = kafka_world_with_small_queue
    driver = running(world)
    good, too_much = (Outgoing(world.out, 0, b"k", Random(0).randbytes(size), ()) for size in (10, 5_000))
    outcome = driver.log.commit(Work(records=[good, too_much, good], offsets={inbox(world, 0): 0}))
    assert isinstance(outcome, Aborted)
    assert "queue" in outcome.reason
    assert world.visible(world.out, 0) == []
    many = [Outgoing(world.out, 0, b"k", Random(0).randbytes(100), ())] * 100  # more than fits at once
    assert driver.log.commit(Work(records=many, offsets={inbox(world, 0): 0})) == Committed()
    assert len(world.visible(world.out, 0)) == 100


@pytest.fixture
def kafka_world_with_small_queue(world: KafkaWorld) -> KafkaWorld:
    """The producer's queue holds one KiB."""
    world.set(**{"producer.queue.buffering.max.kbytes": "1"})
    return world


def test_rule_16_after_a_fence_the_outcome_is_unknown_and_all_is_restored(world: KafkaWorld) -> None:
    """Rule 16: what came of a commit may be unknown."""
    driver = running(world)
    world.publish(world.inbox, 0, b"1", b"2")
    driver.until(lambda: len(driver.records) == 2)
    first, second = driver.take()
    assert driver.log.commit(work_of(world, [first])) == Committed()
    fence(world, "a")
    assert isinstance(driver.log.commit(work_of(world, [second])), Unknown)
    world.publish(world.inbox, 0, b"3")
    driver.turn(0.5)
    assert driver.records == [], "nothing is delivered before the restore"
    for partition in sorted(driver.owned):
        driver.restore(partition)
    driver.until(lambda: len(driver.records) == 2)
    assert values(driver.state[inbox(world, 0)]) == [b"1"]
    assert values(driver.records) == [b"2", b"3"]
    assert driver.log.commit(work_of(world, driver.take())) == Committed()
    assert values(world.visible(world.out, 0)) == [b"1", b"2", b"3"]


def test_rule_16_two_instances_with_one_transactional_id_do_not_go_on_fencing_each_other(world: KafkaWorld) -> None:
    """Rule 16: what came of a commit may be unknown."""
    driver = running(world)
    record = Outgoing(world.out, 0, b"k", b"v", ())
    for _ in range(2):
        fence(world, "a")
        assert isinstance(driver.log.commit(Work(records=[record], offsets={inbox(world, 0): 0})), Unknown)
        for partition in sorted(driver.owned):
            driver.restore(partition)
        driver.until_restored(*driver.owned)
    fence(world, "a")
    with pytest.raises(LogUnavailableError, match="two instances") as refused:
        driver.log.commit(Work(records=[record], offsets={inbox(world, 0): 0}))
    assert refused.value.fatal


def test_rule_16_a_restart_ends_what_its_predecessor_left_open(world: KafkaWorld) -> None:
    """Rules 16 and 22: with a stable transactional id nobody waits for the dead transaction's timeout."""
    dead = Producer(
        {**world.plain, "transactional.id": f"{world.prefix}a", "transaction.timeout.ms": 300_000, "linger.ms": 0}
    )
    dead.init_transactions(30)
    dead.begin_transaction()
    dead.produce(world.inbox, b"never happened", b"k", 0)
    assert dead.flush(30) == 0
    driver = running(world)
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    assert values(driver.records) == [b"1"]


@pytest.mark.parametrize("culprit_size", [3_000, 900_000])
def test_rule_21_a_record_that_the_broker_refuses_is_found_among_good_ones(
    world: KafkaWorld, culprit_size: int
) -> None:
    """Rule 21: the topic's limit is known to the broker alone, and it refuses whole batches."""
    topic = f"{world.prefix}narrow"
    for created in world.admin.create_topics([NewTopic(topic, 1, config={"max.message.bytes": "2000"})]).values():
        created.result(timeout=30)
    driver = running(world)
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    random = Random(0)
    records = [Outgoing(topic, 0, b"%d" % number, random.randbytes(20), ()) for number in range(10)]
    records.insert(6, Outgoing(topic, 0, b"big", random.randbytes(culprit_size), ()))
    for _ in range(2):
        outcome = driver.log.commit(Work(records=records, offsets=offsets_after(driver.take())))
        assert isinstance(outcome, Aborted)
        assert outcome.culprit == 6
        driver.until(lambda: driver.records)
    del records[6]
    good = Work(records=records, offsets=offsets_after(driver.take()))
    # The refused batch left a gap in the producer's sequence, for which the broker may abort once more.
    assert Committed() in {driver.log.commit(good) for _ in range(2)}
    assert len(world.visible(topic, 0)) == 10


def test_rule_21_a_topic_that_does_not_exist_names_the_culprit(world: KafkaWorld) -> None:
    """Rule 21: it aborts well before the transaction times out, which would be fatal."""
    driver = running(world)
    good = Outgoing(world.out, 0, b"k", b"v", ())
    lost = Outgoing(f"{world.prefix}missing", None, b"k", b"v", ())
    outcome = driver.log.commit(Work(records=[good, lost, good], offsets={inbox(world, 0): 0}))
    assert isinstance(outcome, Aborted)
    assert outcome.culprit == 1
    assert driver.log.commit(Work(records=[good], offsets={inbox(world, 0): 0})) == Committed()
    assert len(world.visible(world.out, 0)) == 1


def fence(world: KafkaWorld, instance: str) -> None:
    """Do what a second process with the same transactional id does when it starts."""
    twin = Producer({**world.plain, "transactional.id": f"{world.prefix}{instance}"})
    twin.init_transactions(30)
    twin.close()
