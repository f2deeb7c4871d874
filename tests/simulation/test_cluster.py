"""The simulated cluster does what was seen of real Kafka, also where that is not what one would wish."""

from __future__ import annotations

from random import Random

import pytest

from sagakit.ports.log import Aborted, Committed, Outgoing, StateRead, TopicPartition, Unknown, Work
from sagakit.testing.simulated_cluster import (
    DELETE_RETENTION_MS,
    SESSION_TIMEOUT_MS,
    TRANSACTION_TIMEOUT_MS,
    FencedError,
    IllegalGenerationError,
    Member,
    PendingOffsetError,
    SimulatedClock,
    SimulatedCluster,
)
from tests.contract.simulated import SimulatedWorld
from tests.contract.worlds import PARTITIONS, Driver, offsets_after, values, work_of

STATE = TopicPartition("state", 0)
INBOX = TopicPartition("inbox", 0)


@pytest.fixture
def cluster() -> SimulatedCluster:
    return SimulatedCluster({"state": 1, "inbox": 1}, SimulatedClock(), Random(1))


def member_of(cluster: SimulatedCluster) -> Member:
    group, member = cluster.group("group"), Member(frozenset({"inbox"}))
    group.members.append(member)
    group.rebalance(cluster.partition_counts)
    group.catch_up(member)
    return member


def write(cluster: SimulatedCluster, transactional_id: str, *values: bytes) -> None:
    transaction = cluster.begin(transactional_id, cluster.init_transactions(transactional_id))
    for value in values:
        cluster.produce(transaction, Outgoing("state", 0, b"k" + value, value, ()))
    cluster.commit(transaction)


def test_an_open_transaction_hides_everything_after_it(cluster: SimulatedCluster) -> None:
    """Rule 1: the end that a reader of committed records sees is the last stable offset."""
    log = cluster.logs[STATE]
    write(cluster, "a", b"1")
    hanging = cluster.begin("b", cluster.init_transactions("b"))
    cluster.produce(hanging, Outgoing("state", 0, b"k", b"never", ()))
    write(cluster, "c", b"2")
    assert values(log.read(0, 10)[0]) == [b"1"]
    assert (log.stable_end, log.end) == (2, 5)
    cluster.pass_time(TRANSACTION_TIMEOUT_MS)
    assert values(log.read(0, 10)[0]) == [b"1", b"2"]
    assert log.read(0, 10)[1] == log.end == 6
    with pytest.raises(FencedError):
        cluster.commit(hanging)


def test_who_takes_an_id_over_fences_its_owner(cluster: SimulatedCluster) -> None:
    epoch = cluster.init_transactions("a")
    transaction = cluster.begin("a", epoch)
    cluster.init_transactions("a")
    with pytest.raises(FencedError):
        cluster.produce(transaction, Outgoing("state", 0, b"k", b"v", ()))
    with pytest.raises(FencedError):
        cluster.begin("a", epoch)


def test_a_committed_offset_is_not_known_while_a_transaction_holds_another(cluster: SimulatedCluster) -> None:
    """Rule 2: only an explicit offset of the partition itself fences a transaction."""
    member = member_of(cluster)
    transaction = cluster.begin("a", cluster.init_transactions("a"))
    cluster.send_offsets(transaction, "group", member, {INBOX: 3})
    with pytest.raises(PendingOffsetError):
        cluster.committed_offset("group", INBOX)
    cluster.commit(transaction)
    assert cluster.committed_offset("group", INBOX) == 3


def test_the_member_is_checked_the_partition_is_not_and_an_empty_list_checks_nothing(
    cluster: SimulatedCluster,
) -> None:
    """Rules 2 and 3: what is simulated is as careless as the broker."""
    member = member_of(cluster)
    elsewhere = TopicPartition("state", 0)
    transaction = cluster.begin("a", cluster.init_transactions("a"))
    cluster.send_offsets(transaction, "group", member, {elsewhere: 7})
    cluster.commit(transaction)
    assert cluster.committed_offset("group", elsewhere) == 7
    cluster.group("group").leave(member, cluster.partition_counts)
    zombie = cluster.begin("a", cluster.init_transactions("a"))
    cluster.send_offsets(zombie, "group", member, {})
    cluster.send_offsets(zombie, "group", member, {INBOX: -1001})
    with pytest.raises(IllegalGenerationError):
        cluster.send_offsets(zombie, "group", member, {INBOX: 0})
    cluster.commit(zombie)


def test_compaction_keeps_the_last_of_each_key_and_the_tail_whole(cluster: SimulatedCluster) -> None:
    for key, value in ((b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None), (b"a", b"3"), (b"a", b"4")):
        cluster.append("state", 0, key, value)
    log = cluster.logs[STATE]
    log.compact(4, cluster.clock())
    assert [(one.key, one.value) for one in log.read(0, 10)[0]] == [
        (b"a", b"2"),
        (b"b", None),
        (b"a", b"3"),
        (b"a", b"4"),
    ]
    log.compact(6, cluster.clock() + DELETE_RETENTION_MS + 1)
    assert [(one.key, one.value) for one in log.read(0, 10)[0]] == [(b"a", b"4")]
    assert len(log.written) == 6


def two() -> tuple[SimulatedWorld, Driver, Driver]:
    """Two instances in one group, everything restored."""
    world = SimulatedWorld("two.")
    first, second = Driver(world.open("a")), Driver(world.open("b"))
    for driver in (first, second):
        driver.log.subscribe([world.inbox])
    turn(first, second)
    assert len(first.restored) + len(second.restored) == PARTITIONS
    return world, first, second


def turn(*drivers: Driver, times: int = 12) -> None:
    for _ in range(times):
        for driver in drivers:
            driver.turn()


def test_a_partition_is_given_only_after_its_owner_has_let_go() -> None:
    world, first, second = two()
    for _ in range(20):
        world.cluster.group("group").rebalance(world.cluster.partition_counts, shuffle=True)
        for driver in (second, first):
            driver.turn()
            assert not first.owned & second.owned
    turn(first, second)
    assert len(first.owned) + len(second.owned) == PARTITIONS


def test_who_was_silent_for_too_long_is_put_out_and_its_late_work_is_refused() -> None:
    """Rule 3: the broker checks the member, not the partition."""
    world, first, second = two()
    mine = sorted(first.owned)[0]
    world.publish(world.inbox, mine.partition, b"1")
    first.until(lambda: first.records)
    first.log.silence(True)  # type: ignore[attr-defined]
    world.cluster.pass_time(SESSION_TIMEOUT_MS)
    turn(second)
    assert second.owned == {TopicPartition(world.inbox, number) for number in range(PARTITIONS)}
    assert second.log.commit(work_of(world, second.take())) == Committed()
    assert isinstance(first.log.commit(work_of(world, first.take())), Aborted)
    first.log.silence(False)  # type: ignore[attr-defined]
    turn(first, second)
    assert not first.owned & second.owned
    assert values(world.visible(world.out, mine.partition)) == [b"1"]


def test_a_restore_behind_a_hanging_transaction_fences_it_and_ends_at_the_high_watermark() -> None:
    """Rule 1: the end that a reader is told is not the end of what was committed."""
    world, first, _ = two()
    mine = sorted(first.owned)[0]
    world.publish(world.inbox, mine.partition, b"1")
    first.until(lambda: first.records)
    assert first.log.commit(work_of(world, first.take())) == Committed()
    cluster = world.cluster
    hanging = cluster.begin("dead", cluster.init_transactions("dead"))
    cluster.produce(hanging, Outgoing(world.state, mine.partition, b"k1", b"never", ()))
    world.publish(world.inbox, mine.partition, b"2")
    first.until(lambda: first.records)
    assert first.log.commit(work_of(world, first.take())) == Committed()
    began_ms = cluster.clock()
    first.restore(mine)
    first.until_restored(mine)
    assert 2_000 <= cluster.clock() - began_ms < TRANSACTION_TIMEOUT_MS
    assert [values(one.records) for one in first.changes if isinstance(one, StateRead)][-1][-1:] == [b"2"]


def test_after_an_unknown_outcome_nothing_comes_until_it_is_restored() -> None:
    """Rule 16: what came of a commit may be unknown."""
    world, first, second = two()
    mine = sorted(first.owned)[0]
    world.publish(world.inbox, mine.partition, b"1")
    first.until(lambda: first.records)
    world.cluster.init_transactions("a")
    outcome = first.log.commit(Work(records=[], offsets=offsets_after(first.take())))
    assert isinstance(outcome, Unknown)
    turn(first, second)
    assert first.records == []
    first.restore(mine)
    first.until(lambda: first.records)
    assert values(first.take()) == [b"1"]
