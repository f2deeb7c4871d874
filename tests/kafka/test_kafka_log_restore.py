"""Restores on a real broker: behind open transactions, after aborted ones, and when offsets were lost."""

from __future__ import annotations

import confluent_kafka
import pytest
from confluent_kafka import Producer

from sagakit.adapters.kafka_records import TRANSACTIONAL_ID_HEADER
from sagakit.ports.log import Aborted, Committed, OffsetLost, Outgoing, StateRead, TopicPartition, Work
from tests.contract.worlds import PARTITIONS, Driver, KafkaWorld, values, work_of

pytestmark = pytest.mark.kafka

FOREVER_MS = 300_000
"""A transaction timeout that outlasts every test: what ends before was ended by somebody."""


def hanging_transaction(world: KafkaWorld, transactional_id: str) -> Producer:
    """A producer that has begun a transaction which nobody will end for it. It is never closed: that would end it."""
    producer = Producer(
        {**world.plain, "transactional.id": transactional_id, "transaction.timeout.ms": FOREVER_MS, "linger.ms": 0}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    return producer


def write_state(producer: Producer, world: KafkaWorld, partition: int, value: bytes, transactional_id: str) -> None:
    producer.produce(
        world.state, value, b"saga", partition, headers=[(TRANSACTIONAL_ID_HEADER, transactional_id.encode())]
    )
    assert producer.flush(30) == 0


def running(world: KafkaWorld, instance: str = "a", *, topics: tuple[str, ...] = ()) -> Driver:
    driver = Driver(world.open(instance))
    driver.log.subscribe(topics or [world.inbox])
    return driver


def inbox(world: KafkaWorld, number: int) -> TopicPartition:
    return TopicPartition(world.inbox, number)


def commit_one(driver: Driver, world: KafkaWorld, partition: int, value: bytes) -> None:
    world.publish(world.inbox, partition, value)
    driver.until(lambda: driver.records)
    assert driver.log.commit(work_of(world, driver.take())) == Committed()


def test_rules_1_and_22_a_restore_reads_past_an_open_transaction_by_ending_it(world: KafkaWorld) -> None:
    """Rules 1 and 22: committed state behind an open transaction is restored long before that transaction times out."""
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    commit_one(driver, world, 0, b"v1")
    dead = hanging_transaction(world, f"{world.prefix}dead")
    write_state(dead, world, 0, b"never happened", f"{world.prefix}dead")
    commit_one(driver, world, 0, b"v2")
    driver.log.close(10)

    again = running(world, "b")
    again.until_restored(inbox(world, 0))
    assert values(again.state[inbox(world, 0)]) == [b"v1", b"v2"]
    assert again.restored[inbox(world, 0)] == 2


def test_rule_22_pending_offsets_of_a_dead_owner_are_ended_too(world: KafkaWorld) -> None:
    """Rule 22: a transaction that was left open is ended by the next owner."""
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    commit_one(driver, world, 0, b"v1")
    driver.log.close(10)
    dead = hanging_transaction(world, f"{world.prefix}dead")
    write_state(dead, world, 0, b"never happened", f"{world.prefix}dead")
    send_offset(dead, world, 0, 7)
    again = running(world, "b")
    again.until_restored(inbox(world, 0))
    assert values(again.state[inbox(world, 0)]) == [b"v1"]
    assert again.restored[inbox(world, 0)] == 1


def test_rule_22_an_id_that_is_no_text_leaves_other_transactions_to_be_ended(
    world: KafkaWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 22: a stranger's header once ended the thread that ends transactions, and from then on none was."""
    driver = running(world)
    driver.until_restored(inbox(world, 0), inbox(world, 1))
    stranger = hanging_transaction(world, f"{world.prefix}stranger")
    stranger.produce(world.state, b"strange", b"saga", 0, headers=[(TRANSACTIONAL_ID_HEADER, b"\xff")])
    assert stranger.flush(30) == 0
    dead = hanging_transaction(world, f"{world.prefix}dead")
    write_state(dead, world, 1, b"never happened", f"{world.prefix}dead")
    driver.restored.clear()
    driver.restore(inbox(world, 0))
    driver.until(lambda: "open transaction of an unknown producer" in caplog.text)
    driver.restore(inbox(world, 1))
    driver.until_restored(inbox(world, 1))
    assert inbox(world, 0) not in driver.restored


def test_rule_23_a_pending_offset_holds_back_its_own_partition_only(world: KafkaWorld) -> None:
    """Rule 23: one pending offset holds back its own partition only."""
    dead = hanging_transaction(world, f"{world.prefix}dead")
    send_offset(dead, world, 0, 0)
    driver = running(world)
    driver.until_restored(*(inbox(world, number) for number in range(1, PARTITIONS)))
    world.publish(world.inbox, 1, b"goes on")
    driver.until(lambda: driver.records)
    assert values(driver.take()) == [b"goes on"]
    assert inbox(world, 0) not in driver.restored
    dead.abort_transaction(30)
    driver.until_restored(inbox(world, 0))


def test_an_open_transaction_of_an_unknown_producer_is_waited_for(world: KafkaWorld) -> None:
    """Rule 1: without the header nobody can be fenced; the restore still never ends below its mark."""
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    commit_one(driver, world, 0, b"v1")
    stranger = hanging_transaction(world, f"{world.prefix}stranger")
    stranger.produce(world.state, b"strange", b"saga", 0)
    assert stranger.flush(30) == 0
    commit_one(driver, world, 0, b"v2")
    driver.restore(inbox(world, 0))
    driver.until(lambda: driver.state[inbox(world, 0)])
    for _ in range(30):
        driver.turn()
    assert values(driver.state[inbox(world, 0)]) == [b"v1"]
    assert inbox(world, 0) not in driver.restored
    stranger.abort_transaction(30)
    driver.until_restored(inbox(world, 0))
    assert values(driver.state[inbox(world, 0)]) == [b"v1", b"v2"]


def test_rule_22_a_transaction_that_fencing_does_not_end_is_reported_once_with_the_remedy(
    world: KafkaWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 22: where the broker has lost the mark that ends a transaction, fencing again would hit only the living."""
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    commit_one(driver, world, 0, b"v1")
    nobody = f"{world.prefix}whose-transaction-is-over"
    open_for_good = hanging_transaction(world, f"{world.prefix}another")
    write_state(open_for_good, world, 0, b"never happened", nobody)
    commit_one(driver, world, 0, b"v2")
    driver.restore(inbox(world, 0))
    driver.until(lambda: "kafka-transactions.sh abort" in caplog.text)
    for _ in range(30):
        driver.turn()
    said = [record.getMessage() for record in caplog.records]
    assert len([one for one in said if f"fencing {nobody}" in one]) == 1
    assert f"abort --topic {world.state} --partition 0 --start-offset" in caplog.text
    assert inbox(world, 0) not in driver.restored
    open_for_good.abort_transaction(30)
    driver.until_restored(inbox(world, 0))
    assert values(driver.state[inbox(world, 0)]) == [b"v1", b"v2"]


def test_aborted_states_are_invisible_and_are_no_sign_of_a_lost_offset(world: KafkaWorld) -> None:
    """The very first cycle of a partition may abort: then there is a log of its state, and no offset."""
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    work = work_of(world, driver.take())
    refused = Outgoing("no-such-topic", None, b"k", b"v", ())
    outcome = driver.log.commit(Work(records=[*work.records, refused], offsets=work.offsets))
    assert isinstance(outcome, Aborted)
    assert outcome.culprit == len(work.records)
    driver.log.close(10)

    again = running(world, "b")
    again.until(lambda: again.records)
    assert values(again.records) == [b"1"]
    assert again.state[inbox(world, 0)] == []
    assert again.lost == []


def test_a_revoked_or_repeated_restore_gives_nothing_more(world: KafkaWorld) -> None:
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    commit_one(driver, world, 0, b"v1")
    for _ in range(5):
        driver.restore(inbox(world, 0))
        driver.turn(0)
    driver.until_restored(inbox(world, 0))
    driver.turn(0.2)
    assert values(driver.state[inbox(world, 0)]) == [b"v1"]

    driver.restore(inbox(world, 0))
    driver.log.subscribe([world.trigger])
    driver.until_restored(*(TopicPartition(world.trigger, number) for number in range(PARTITIONS)))
    last_revoked = max(n for n, one in enumerate(driver.changes) if one.partition.topic == world.inbox)
    assert not any(isinstance(one, StateRead) for one in driver.changes[last_revoked:])


def test_rule_4_a_committed_offset_below_the_log_start_is_lost(world: KafkaWorld) -> None:
    """Rule 4: what nobody has read must not go, and a lost offset must be loud."""
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    commit_one(driver, world, 0, b"1")
    driver.log.close(10)
    world.publish(world.inbox, 0, b"2", b"3", b"4")
    delete_records(world, inbox(world, 0), before=3)

    again = running(world, "b")
    again.until(lambda: again.lost)
    assert again.lost == [OffsetLost(partition=inbox(world, 0), committed=1, log_start=3)]
    again.until_restored(*(inbox(world, number) for number in range(1, PARTITIONS)))
    world.publish(world.inbox, 1, b"others go on")
    again.until(lambda: again.records)
    assert values(again.records) == [b"others go on"]
    assert inbox(world, 0) not in again.restored


def test_rule_4_records_that_vanish_while_they_are_still_to_be_read_are_lost(world: KafkaWorld) -> None:
    """Rule 4: what nobody has read must not go, and a lost offset must be loud."""
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    world.publish(world.inbox, 0, b"1", b"2", b"3")
    driver.until(lambda: len(driver.records) == 3)
    delete_records(world, inbox(world, 0), before=3)
    work = work_of(world, driver.take())
    refused = Outgoing(world.out, PARTITIONS + 1, b"k", b"v", ())
    assert isinstance(driver.log.commit(Work(records=[refused], offsets=work.offsets)), Aborted)
    driver.until(lambda: driver.lost)
    assert driver.lost == [OffsetLost(partition=inbox(world, 0), committed=0, log_start=3)]


def test_rule_4_a_vanished_offset_is_told_by_the_state_that_is_left(world: KafkaWorld) -> None:
    """Rule 4: what nobody has read must not go, and a lost offset must be loud."""
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    commit_one(driver, world, 0, b"1")
    driver.log.close(10)
    for deleted in world.admin.delete_consumer_groups([world.group]).values():
        deleted.result(timeout=30)

    again = running(world, "b")
    again.until(lambda: again.lost)
    assert again.lost == [OffsetLost(partition=inbox(world, 0), committed=None, log_start=0)]
    again.until_restored(*(inbox(world, number) for number in range(1, PARTITIONS)))
    assert inbox(world, 0) not in again.restored


def test_rule_4_with_the_groups_offsets_gone_no_trigger_is_read_anew(
    world: KafkaWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 4: a trigger partition has no state to tell by; it would start every saga of its history once more."""
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    commit_one(driver, world, 0, b"1")
    driver.log.close(10)
    world.publish(world.trigger, 0, b"an old order")
    for deleted in world.admin.delete_consumer_groups([world.group]).values():
        deleted.result(timeout=30)

    again = Driver(world.open("b"), first_offsets={TopicPartition(world.trigger, 0): 0})
    again.log.subscribe([world.inbox, world.trigger])
    again.until(lambda: again.lost)
    again.until(lambda: "set the group's offsets by hand" in caplog.text)
    assert not [one for one in again.restored if one.topic == world.trigger]
    assert again.records == []


def test_rule_4_a_first_offset_that_the_log_no_longer_has_is_lost(world: KafkaWorld) -> None:
    """Rule 4: what nobody has read must not go, and a lost offset must be loud."""
    partition = TopicPartition(world.trigger, 2)
    world.publish(world.trigger, 2, b"1", b"2", b"3")
    delete_records(world, partition, before=2)
    driver = Driver(world.open(), first_offsets={partition: 1})
    driver.log.subscribe([world.trigger])
    driver.until(lambda: driver.lost)
    assert driver.lost == [OffsetLost(partition=partition, committed=None, log_start=2)]


def test_a_purged_inbox_goes_on_at_the_committed_offset(world: KafkaWorld) -> None:
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    world.publish(world.inbox, 0, b"1", b"2")
    driver.until(lambda: len(driver.records) == 2)
    assert driver.log.commit(work_of(world, driver.take())) == Committed()
    driver.log.close(10)
    delete_records(world, inbox(world, 0), before=2)
    world.publish(world.inbox, 0, b"3")

    again = running(world, "b")
    again.until(lambda: again.records)
    assert values(again.records) == [b"3"]
    assert again.lost == []


def test_an_open_transaction_keeps_the_end_from_being_reached(world: KafkaWorld) -> None:
    """Rule 14: a reply in the log beats its timeout."""
    driver = running(world)
    driver.until_restored(inbox(world, 0))
    driver.until(lambda: driver.log.reached_end([inbox(world, 0)]))
    slow = hanging_transaction(world, f"{world.prefix}slow")
    slow.produce(world.inbox, b"late", b"saga", 0)
    assert slow.flush(30) == 0
    for _ in range(3):
        driver.turn()
        assert driver.log.reached_end([inbox(world, 0)]) == {}
    slow.commit_transaction(30)
    driver.until(lambda: driver.log.reached_end([inbox(world, 0)]))
    assert values(driver.records) == [b"late"]


def send_offset(producer: Producer, world: KafkaWorld, partition: int, offset: int) -> None:
    """Put an offset of the group into the open transaction, as a member that is gone would have done."""
    stranger = confluent_kafka.Consumer({**world.plain, "group.id": world.group})
    producer.send_offsets_to_transaction(
        [confluent_kafka.TopicPartition(world.inbox, partition, offset)], stranger.consumer_group_metadata(), 30
    )
    stranger.close()


def delete_records(world: KafkaWorld, partition: TopicPartition, *, before: int) -> None:
    place = confluent_kafka.TopicPartition(partition.topic, partition.partition, before)
    for deleted in world.admin.delete_records([place]).values():
        deleted.result(timeout=30)
