"""A small engine over a real log, whose output shows every loss and every double."""

from __future__ import annotations

from collections import defaultdict
from random import Random

from sagakit.ports.log import (
    Aborted,
    Change,
    Committed,
    Outgoing,
    Restored,
    Revoked,
    TopicPartition,
    Unknown,
    Work,
)
from tests.contract.worlds import PARTITIONS, Driver, KafkaWorld, offsets_after


class Counter(Driver):
    """A small engine: the state of a partition is how many records it has counted; each count is written out once."""

    def __init__(self, world: KafkaWorld, instance: str) -> None:
        super().__init__(world.open(instance))
        self.world = world
        self.counted: dict[TopicPartition, int] = {}
        self.log.subscribe([world.inbox])

    def cycle(self, random: Random) -> None:
        """Poll, count, commit; now and then the work holds a record that is refused, and the cycle is aborted."""
        self.turn(0.05)
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

    def _take(self, change: Change) -> None:
        super()._take(change)
        if isinstance(change, Restored):
            state = self.state[change.partition]
            self.counted[change.partition] = int(state[-1].value or b"") if state else 0
        elif isinstance(change, Revoked):
            self.records = [one for one in self.records if (one.topic, one.partition) != change.partition]
