"""Several instances in one group on a real broker: partitions move, and nothing is lost or done twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from random import Random

import pytest

from sagakit.ports.log import Aborted, Committed, Outgoing, Revoked, TopicPartition, Unknown, Work
from tests.contract.worlds import PARTITIONS, Driver, KafkaWorld, offsets_after, values

pytestmark = pytest.mark.kafka

RECORDS = 400


class Counter(Driver):
    """A small engine: the state of a partition is how many records it has counted; each count is written out once."""

    def __init__(self, world: KafkaWorld, instance: str) -> None:
        super().__init__(world.open(instance))
        self.world = world
        self.counted: dict[TopicPartition, int] = {}
        self.log.subscribe([world.inbox])

    def cycle(self, random: Random) -> None:
        """Poll, count, commit; now and then the work holds a record that is refused, and the cycle is aborted."""
        known = set(self.restored)
        self.turn(0.05)
        for partition in set(self.restored) - known:
            state = self.state[partition]
            self.counted[partition] = int(state[-1].value or b"") if state else 0
        records = self.take()
        if not records:
            return
        counts: defaultdict[TopicPartition, int] = defaultdict(int)
        out: list[Outgoing] = []
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            counts[partition] += 1
            count = self.counted[partition] + counts[partition]
            out.append(Outgoing(self.world.out, partition.partition, b"k", b"%d %s" % (count, record.value), ()))
        for partition, more in counts.items():
            value = b"%d" % (self.counted[partition] + more)
            out.append(Outgoing(self.world.state, partition.partition, b"count", value, ()))
        if random.random() < 0.2:
            out.append(Outgoing(self.world.out, PARTITIONS + 1, b"k", b"refused", ()))
        outcome = self.log.commit(Work(records=out, offsets=offsets_after(records)))
        if isinstance(outcome, Committed):
            for partition, more in counts.items():
                self.counted[partition] += more
        elif isinstance(outcome, Unknown):
            for partition in sorted(self.owned):
                self.restore(partition)
        else:
            assert isinstance(outcome, Aborted)


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
