"""The contract of `TransactionalLog`, the same for every adapter: what the loop may rely on, whatever is underneath."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sagakit.core.placement import partition_of
from sagakit.ports.log import Aborted, Committed, Outgoing, Restored, Revoked, StateRead, TopicPartition, Work
from sagakit.testing.embedded import EmbeddedKafka
from sagakit.testing.kafka import KafkaServer
from tests.contract.simulated import SimulatedWorld
from tests.contract.worlds import (
    PARTITIONS,
    Driver,
    EmbeddedWorld,
    KafkaWorld,
    World,
    offsets_after,
    values,
    work_of,
)


@pytest.fixture(params=["simulated", "embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[World]:
    """One adapter with topics of this test's own."""
    one: KafkaWorld | EmbeddedWorld | SimulatedWorld
    if request.param == "kafka":
        kafka: KafkaServer = request.getfixturevalue("kafka")
        one = KafkaWorld(kafka.client_properties(), topic_prefix)
    elif request.param == "simulated":
        one = SimulatedWorld(topic_prefix)
    else:
        embedded: EmbeddedKafka = request.getfixturevalue("embedded_kafka")
        one = EmbeddedWorld(embedded.client_properties(), topic_prefix)
    yield one
    one.close()


def running(world: World, *topics: str, instance: str = "a") -> Driver:
    """A driver whose partitions are all restored."""
    driver = Driver(world.open(instance))
    driver.log.subscribe(topics)
    driver.until_restored(*(TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)))
    return driver


def test_nothing_is_delivered_before_the_restore_has_finished(world: World) -> None:
    """Rule 23: one pending offset holds back its own partition only."""
    world.publish(world.inbox, 0, b"1", b"2")
    driver = Driver(world.open(), restores=False)
    driver.log.subscribe([world.inbox])
    driver.until(lambda: len(driver.owned) == PARTITIONS)
    for _ in range(5):
        driver.turn()
    assert driver.records == []
    for partition in sorted(driver.owned):
        driver.restore(partition)
    driver.until(lambda: len(driver.records) == 2)
    assert values(driver.records) == [b"1", b"2"]
    assert [one.offset for one in driver.records] == [0, 1]
    assert driver.records[0].key == b"k1"
    assert driver.records[0].timestamp_ms > 1_600_000_000_000


def test_without_a_committed_offset_a_partition_begins_at_the_given_offset(world: World) -> None:
    """Rule 9: a new trigger topic is read from where the definition became valid: not all of it, nor only its end."""
    world.publish(world.trigger, 1, b"old", b"older", b"new", b"newer")
    driver = Driver(world.open(), first_offsets={TopicPartition(world.trigger, 1): 2})
    driver.log.subscribe([world.inbox])
    driver.until_restored(*(TopicPartition(world.inbox, number) for number in range(PARTITIONS)))
    driver.log.subscribe([world.inbox, world.trigger])
    driver.until(lambda: len(driver.records) == 2)
    assert values(driver.records) == [b"new", b"newer"]
    assert driver.restored[TopicPartition(world.trigger, 1)] == 2


def test_a_topic_without_state_gives_restored_alone(world: World) -> None:
    driver = running(world, world.trigger)
    assert [one for one in driver.changes if isinstance(one, StateRead)] == []


def test_committed_work_is_visible_and_not_delivered_again(world: World) -> None:
    driver = running(world, world.inbox)
    world.publish(world.inbox, 0, b"1", b"2")
    world.publish(world.inbox, 3, b"3")
    driver.until(lambda: len(driver.records) == 3)
    assert driver.log.commit(work_of(world, driver.take())) == Committed()
    assert values(world.visible(world.out, 0)) == [b"1", b"2"]
    assert values(world.visible(world.out, 3)) == [b"3"]
    driver.log.close(10)

    again = running(world, world.inbox, instance="b")
    assert again.restored[TopicPartition(world.inbox, 0)] >= 2
    world.publish(world.inbox, 0, b"4")
    again.until(lambda: again.records)
    assert values(again.records) == [b"4"]


def test_records_pass_through_whole(world: World) -> None:
    driver = running(world, world.inbox)
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    headers = [("a", b"1"), ("b", b""), ("a", b"2")]
    work = Work(
        records=[
            Outgoing(world.out, 2, b"key", b"value", headers),
            Outgoing(world.out, 2, b"gone", None, tuple(headers)),
        ],
        offsets=offsets_after(driver.records),
    )
    assert driver.log.commit(work) == Committed()
    first, second = world.visible(world.out, 2)
    assert (first.key, first.value, list(first.headers)) == (b"key", b"value", headers)
    assert (second.key, second.value, list(second.headers)) == (b"gone", None, headers)


def test_a_record_without_partition_goes_where_murmur2_says(world: World) -> None:
    """Rule 6: another partition count moves sagas."""
    driver = running(world, world.inbox)
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    keys = [b"%d" % number for number in range(20)]
    work = Work(
        records=[Outgoing(world.out, None, key, b"v", ()) for key in keys], offsets=offsets_after(driver.records)
    )
    assert driver.log.commit(work) == Committed()
    placed = {one.key: one.partition for number in range(PARTITIONS) for one in world.visible(world.out, number)}
    assert placed == {key: partition_of(key, PARTITIONS) for key in keys}


def test_a_restore_gives_the_committed_state_and_then_the_rest_of_the_inbox(world: World) -> None:
    driver = running(world, world.inbox)
    partition = TopicPartition(world.inbox, 0)
    world.publish(world.inbox, 0, b"1", b"2", b"3")
    driver.until(lambda: len(driver.records) == 3)
    first, second, _ = driver.take()
    assert driver.log.commit(work_of(world, [first])) == Committed()
    later = Work(
        records=[
            Outgoing(world.state, 0, b"k1", b"1 again", ()),
            Outgoing(world.state, 0, b"k2", b"2", ()),
            Outgoing(world.state, 0, b"k0", b"0", ()),
            Outgoing(world.state, 0, b"k0", None, ()),
        ],
        offsets=offsets_after([second]),
    )
    assert driver.log.commit(later) == Committed()
    driver.log.close(10)

    again = running(world, world.inbox, instance="b")
    latest = {one.key: one.value for one in again.state[partition]}
    assert {key: value for key, value in latest.items() if value is not None} == {b"k1": b"1 again", b"k2": b"2"}
    again.until(lambda: again.records)
    assert values(again.take()) == [b"3"]


def test_a_running_partition_can_be_restored_again(world: World) -> None:
    driver = running(world, world.inbox)
    partition = TopicPartition(world.inbox, 0)
    world.publish(world.inbox, 0, b"1", b"2")
    driver.until(lambda: len(driver.records) == 2)
    first, _ = driver.take()
    assert driver.log.commit(work_of(world, [first])) == Committed()
    driver.restore(partition)
    driver.until_restored(partition)
    assert values(driver.state[partition]) == [b"1"]
    driver.until(lambda: driver.records)
    assert values(driver.take()) == [b"2"]


def test_a_partition_can_be_delivered_again_without_its_state(world: World) -> None:
    driver = running(world, world.inbox)
    partition = TopicPartition(world.inbox, 0)
    world.publish(world.inbox, 0, b"1", b"2")
    driver.until(lambda: len(driver.records) == 2)
    first, _ = driver.take()
    assert driver.log.commit(work_of(world, [first])) == Committed()
    before = len(driver.changes)
    driver.restore(partition, state=False)
    driver.until_restored(partition)
    assert [one for one in driver.changes[before:] if not isinstance(one, Revoked)] == [
        Restored(partition=partition, next_offset=first.offset + 1)
    ]
    driver.until(lambda: driver.records)
    assert values(driver.take()) == [b"2"]


def test_a_record_that_is_refused_aborts_all_and_everything_comes_again_once_in_order(world: World) -> None:
    """Rule 11: also after several aborts in a row, and the partitions that took part in no work are rewound too."""
    driver = running(world, world.inbox)
    world.publish(world.inbox, 0, *(b"%d" % number for number in range(10)))
    world.publish(world.inbox, 1, b"other")
    driver.until(lambda: len(driver.records) == 11)
    zero = [one for one in driver.take() if one.partition == 0]
    assert driver.log.commit(work_of(world, zero[:4])) == Committed()
    again = zero[4:]
    for _ in range(3):
        work = work_of(world, [one for one in again if one.partition == 0])
        refused = Outgoing(world.out, 0, b"big", b"x" * 1_100_000, ())
        outcome = driver.log.commit(Work(records=[*work.records, refused, *work.records], offsets=work.offsets))
        assert isinstance(outcome, Aborted)
        assert outcome.culprit == len(work.records)
        driver.until(lambda: len(driver.records) == 7)
        driver.turn()
        again = driver.take()
        assert [one.offset for one in again if one.partition == 0] == [4, 5, 6, 7, 8, 9]
        assert values([one for one in again if one.partition == 1]) == [b"other"]
    assert driver.log.commit(work_of(world, again)) == Committed()
    assert values(world.visible(world.out, 0)) == [b"%d" % number for number in range(10)]


def test_a_partition_that_does_not_exist_names_the_culprit(world: World) -> None:
    """Rule 11: a record that was not queued fails the whole cycle."""
    driver = running(world, world.inbox)
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    good = Outgoing(world.out, 0, b"k", b"v", ())
    bad = Outgoing(world.out, PARTITIONS + 7, b"k", b"v", ())
    outcome = driver.log.commit(Work(records=[good, bad, good], offsets=offsets_after(driver.records)))
    assert isinstance(outcome, Aborted)
    assert outcome.culprit == 1
    assert world.visible(world.out, 0) == []


@pytest.mark.parametrize("offset", [-1, -1001])
def test_work_with_an_invalid_offset_is_a_bug(world: World, offset: int) -> None:
    """Rule 2: the client drops invalid offsets in silence, and then nothing is fenced."""
    driver = running(world, world.inbox)
    with pytest.raises(ValueError, match="explicit"):
        driver.log.commit(Work(records=[], offsets={TopicPartition(world.inbox, 0): offset}))


def test_work_without_offsets_is_a_bug(world: World) -> None:
    """Rule 2: an empty list of offsets fences nothing."""
    driver = running(world, world.inbox)
    with pytest.raises(ValueError, match="without offsets"):
        driver.log.commit(Work(records=[Outgoing(world.out, 0, b"k", b"v", ())], offsets={}))


def test_an_offset_that_goes_back_is_a_bug(world: World) -> None:
    driver = running(world, world.inbox)
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    assert driver.log.commit(work_of(world, driver.take())) == Committed()
    with pytest.raises(ValueError, match="goes back"):
        driver.log.commit(Work(records=[], offsets={TopicPartition(world.inbox, 0): 0}))


def test_work_for_a_partition_that_waits_for_its_restore_is_a_bug(world: World) -> None:
    driver = Driver(world.open(), restores=False)
    driver.log.subscribe([world.inbox])
    driver.until(lambda: len(driver.owned) == PARTITIONS)
    with pytest.raises(ValueError, match="has not been restored"):
        driver.log.commit(Work(records=[], offsets={TopicPartition(world.inbox, 0): 0}))


def test_work_for_a_partition_that_is_not_ours_is_aborted(world: World) -> None:
    """Rule 3: the broker would take it, since it checks the member and not the partition."""
    driver = running(world, world.inbox)
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    stranger = {TopicPartition(world.trigger, 0): 0}
    work = work_of(world, driver.take())
    outcome = driver.log.commit(Work(records=work.records, offsets={**work.offsets, **stranger}))
    assert isinstance(outcome, Aborted)
    assert outcome.culprit is None
    assert world.visible(world.out, 0) == []
    driver.until(lambda: driver.records)
    assert values(driver.take()) == [b"1"]


def test_timer_work_commits_an_unchanged_offset(world: World) -> None:
    """Rule 2: only an explicit offset of the partition itself fences a transaction."""
    driver = running(world, world.inbox)
    partition = TopicPartition(world.inbox, 2)
    for value in (b"tick", b"tock"):
        record = Outgoing(world.out, 2, b"k", value, ())
        outcome = driver.log.commit(Work(records=[record], offsets={partition: driver.restored[partition]}))
        assert outcome == Committed()
    assert values(world.visible(world.out, 2)) == [b"tick", b"tock"]


def test_the_end_is_reached_when_poll_has_given_everything(world: World) -> None:
    driver = running(world, world.inbox)
    partitions = [TopicPartition(world.inbox, number) for number in range(PARTITIONS)]
    driver.until(lambda: driver.log.reached_end(partitions).keys() == set(partitions))
    world.publish(world.inbox, 1, b"1")
    assert driver.log.reached_end(partitions).keys() == set(partitions) - {partitions[1]}
    driver.until(lambda: driver.records)
    assert driver.log.reached_end(partitions).keys() == set(partitions)
    refused = Outgoing(world.out, PARTITIONS + 1, b"k", b"v", ())
    assert isinstance(driver.log.commit(Work(records=[refused], offsets={partitions[1]: 1})), Aborted)
    assert partitions[1] not in driver.log.reached_end(partitions), "the record is to be delivered again"


def test_the_end_lies_behind_the_mark_of_a_transaction_and_can_be_committed(world: World) -> None:
    """Rule 4: what idles must not be committed below what retention deletes, or it looks as if records were lost."""
    driver = running(world, world.inbox)
    partition, other = TopicPartition(world.inbox, 0), TopicPartition(world.inbox, 1)
    record = Outgoing(world.inbox, 0, b"k", b"by a transaction", ())
    assert driver.log.commit(Work(records=[record], offsets={other: driver.restored[other]})) == Committed()
    driver.until(lambda: driver.records)
    driver.until(lambda: partition in driver.log.reached_end([partition]))
    end = driver.log.reached_end([partition])[partition]
    assert end >= driver.records[0].offset + 1
    assert driver.log.commit(Work(records=[], offsets={partition: end})) == Committed()
    driver.restore(partition, state=False)
    driver.until_restored(partition)
    assert driver.restored[partition] == end


def test_restoring_what_is_not_ours_is_a_bug(world: World) -> None:
    driver = running(world, world.inbox)
    with pytest.raises(ValueError, match="not assigned"):
        driver.log.restore(TopicPartition(world.trigger, 0), None)


def test_a_topic_that_is_no_longer_subscribed_is_revoked(world: World) -> None:
    driver = running(world, world.inbox, world.trigger)
    driver.log.subscribe([world.inbox])
    driver.until(lambda: len(driver.owned) == PARTITIONS)
    assert {one.topic for one in driver.owned} == {world.inbox}
    world.publish(world.trigger, 0, b"nobody's")
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    assert values(driver.take()) == [b"1"]
