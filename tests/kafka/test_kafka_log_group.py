"""Several instances in one group on a real broker: partitions move, and nothing is lost or done twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from random import Random

import pytest

from sagakit.ports.log import Aborted, Committed, Outgoing, Revoked, TopicPartition, Work
from tests.contract.worlds import PARTITIONS, Driver, KafkaWorld, values, work_of
from tests.kafka.counter import Counter

pytestmark = pytest.mark.kafka

RECORDS = 400


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_rule_24_partitions_move_between_instances_without_loss_and_without_double(
    world: KafkaWorld, protocol: str
) -> None:
    """Rule 24: a rebalance moves as little as it can."""
    world.set(**{"consumer.group.protocol": protocol})
    random = Random(24)
    first = Counter(world, "first")
    batches = iter([range(start, start + 5) for start in range(0, RECORDS // PARTITIONS, 5)])

    def publish(batch: Sequence[int]) -> None:
        for number in range(PARTITIONS):
            world.publish(world.inbox, number, *(b"%d" % count for count in batch))

    def done() -> int:
        return sum(len(world.visible(world.out, number)) for number in range(PARTITIONS))

    publish(next(batches))
    while not first.restored:
        first.cycle(random)
    second = Counter(world, "second")
    while len(second.restored) < PARTITIONS // 2:
        if len(first.restored) == PARTITIONS:  # under load while the group rebalances, but not for ever
            publish(next(batches, ()))
        first.cycle(random)
        second.cycle(random)
    publish(tuple(chain.from_iterable(batches)))
    for _ in range(5):
        first.cycle(random)
        second.cycle(random)
    first.log.close(10)
    while done() < RECORDS:
        for _ in range(10):
            second.cycle(random)
    each = RECORDS // PARTITIONS
    for number in range(PARTITIONS):
        expected = [b"%d %d" % (count + 1, count) for count in range(each)]
        assert values(world.visible(world.out, number)) == expected


def test_rule_24_only_the_partitions_that_move_are_revoked(world: KafkaWorld) -> None:
    """Rule 24: a rebalance moves as little as it can."""
    first = Driver(world.open("first"))
    first.log.subscribe([world.inbox])
    first.until(lambda: len(first.restored) == PARTITIONS)
    second = Driver(world.open("second"))
    second.log.subscribe([world.inbox])

    def balanced() -> bool:
        second.turn(0.05)
        return len(second.restored) == PARTITIONS // 2

    first.until(balanced)
    revoked = [one for one in first.changes if isinstance(one, Revoked)]
    assert len(revoked) == PARTITIONS // 2
    assert first.owned | second.owned == {TopicPartition(world.inbox, number) for number in range(PARTITIONS)}
    assert not first.owned & second.owned


def test_rule_3_work_for_a_partition_that_has_moved_is_refused(world: KafkaWorld) -> None:
    """Rule 3: the broker checks the member, not the partition."""
    first = Driver(world.open("first"))
    first.log.subscribe([world.inbox])
    first.until(lambda: len(first.restored) == PARTITIONS)
    second = Driver(world.open("second"))
    second.log.subscribe([world.inbox])

    def moved() -> bool:
        second.turn(0.05)
        return bool(second.restored)

    first.until(moved)
    theirs = min(second.restored)
    record = Outgoing(world.out, theirs.partition, b"k", b"not ours", ())
    outcome = first.log.commit(Work(records=[record], offsets={theirs: 0}))
    assert isinstance(outcome, Aborted)
    assert "not assigned" in outcome.reason
    assert world.visible(world.out, theirs.partition) == []
    assert second.log.commit(Work(records=[record], offsets={theirs: 0})) == Committed()


@pytest.mark.slow
def test_rule_3_who_did_not_poll_for_too_long_is_refused_and_all_is_done_by_the_next_owner(world: KafkaWorld) -> None:
    """Rule 3: the client has left the group by then, has no member id any more, and does not know it before its poll.

    A transaction without a member id would be checked by nobody.
    """
    world.set(**{"consumer.max.poll.interval.ms": "6000", "consumer.session.timeout.ms": "6000"})
    slow = Driver(world.open("slow"))
    slow.log.subscribe([world.inbox])
    slow.until(lambda: len(slow.restored) == PARTITIONS)
    world.publish(world.inbox, 0, b"1")
    slow.until(lambda: slow.records)
    work = work_of(world, slow.take())

    heir = Driver(world.open("heir"))
    heir.log.subscribe([world.inbox])
    heir.until(lambda: len(heir.restored) == PARTITIONS and heir.records)
    assert heir.log.commit(work_of(world, heir.take())) == Committed()
    outcome = slow.log.commit(work)
    assert isinstance(outcome, Aborted)
    assert "no member" in outcome.reason
    assert values(world.visible(world.out, 0)) == [b"1"]
    assert values(world.visible(world.state, 0)) == [b"1"]
    slow.until(lambda: any(isinstance(one, Revoked) for one in slow.changes))
