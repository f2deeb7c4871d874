"""Several instances in one group on a real broker: partitions move, and nothing is lost or done twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from random import Random

import pytest

from sagakit.ports.log import Aborted, Committed, Outgoing, Revoked, TopicPartition, Work
from tests.contract.worlds import PARTITIONS, Driver, KafkaWorld, values
from tests.kafka.counter import Counter

pytestmark = pytest.mark.kafka

RECORDS = 400


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_rule_24_partitions_move_between_instances_without_loss_and_without_double(
    world: KafkaWorld, protocol: str
) -> None:
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
