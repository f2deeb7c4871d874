"""Which records are in work, in what order they may run, how far offsets may be committed. No threads, no Kafka.

A record goes through these states. *Waiting*: an earlier record of the same key is still in its handler. *Running*: it
may run, and once it has *begun*, its handler does. *Handled*: the handler has ended but the reply's delivery report
is outstanding. Then it is finished, and offsets are committed only below the oldest record of the partition that is
not.

Each assignment of a partition has an *epoch*. What ends after its assignment has ended commits nothing: the partition
may be another instance's by then, and a plain commit would move the group back.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from sagakit.ports.log import TopicPartition

Item = TypeVar("Item")
Lane = tuple[TopicPartition, bytes]


@dataclass(slots=True, eq=False, kw_only=True)
class Ticket(Generic[Item]):
    """One record in work. Compared by identity: the same offset can be in work twice, in two assignments."""

    partition: TopicPartition
    offset: int
    epoch: int
    key: bytes | None
    item: Item
    begun: bool = False


class _Assignment(Generic[Item]):
    """One partition as long as it is ours: offsets taken in, in order, and which of them are finished."""

    __slots__ = ("begun_below", "committed", "epoch", "finished", "next_offset", "unfinished", "withdrawn")

    def __init__(self, epoch: int, next_offset: int) -> None:
        self.epoch = epoch
        self.next_offset = next_offset
        self.committed = next_offset
        self.begun_below = next_offset
        self.unfinished: deque[int] = deque()
        self.finished: set[int] = set()
        self.withdrawn = False

    @property
    def position(self) -> int:
        """The offset below which everything is finished."""
        return self.unfinished[0] if self.unfinished else self.next_offset

    @property
    def depth(self) -> int:
        """How many records are taken in and not finished."""
        return len(self.unfinished) - len(self.finished)

    def finish(self, offset: int) -> None:
        self.finished.add(offset)
        while self.unfinished and self.unfinished[0] in self.finished:
            self.finished.remove(self.unfinished.popleft())


class Worklist(Generic[Item]):
    """The records in work of one consumer.

    `limit` bounds the records in work altogether. A partition with `partition_limit` of them is to be paused until
    half are done, so that one slow handler neither fills memory nor starves the other partitions.
    """

    def __init__(self, *, limit: int, partition_limit: int) -> None:
        """Begin with nothing assigned.

        Raises:
            ValueError: if a limit is below 1.
        """
        if limit < 1 or partition_limit < 1:
            raise ValueError(f"limits of a worklist are at least 1, not {limit} and {partition_limit}")
        self._limit = limit
        self._partition_limit = partition_limit
        self._epoch = 0
        self._assignments: dict[TopicPartition, _Assignment[Item]] = {}
        self._lanes: dict[Lane, deque[Ticket[Item]]] = {}
        self._running: set[Ticket[Item]] = set()
        self._handled: set[Ticket[Item]] = set()
        self._depth = 0
        self._paused: set[TopicPartition] = set()
        self._full = False

    @property
    def room(self) -> int:
        """How many more records may be taken in now."""
        return max(0, self._limit - self._depth)

    @property
    def awaits_delivery(self) -> bool:
        """Whether a handled record waits for its delivery report."""
        return bool(self._handled)

    def assign(self, partition: TopicPartition, next_offset: int) -> None:
        """A partition is ours from `next_offset` on. A new epoch begins, also if it was ours before."""
        self.drop([partition])
        self._epoch += 1
        self._assignments[partition] = _Assignment(self._epoch, next_offset)

    def admit(self, partition: TopicPartition, offset: int, key: bytes | None, item: Item) -> Ticket[Item] | None:
        """Take a record in. The ticket is given back if the record may run now; else it comes from `handled` later.

        Records of one key run one after the other; records without a key wait for nobody. A record of a partition
        that is not ours, or one that was taken in already, is not taken in again: whoever owns the partition gets it.
        """
        assignment = self._assignments.get(partition)
        if assignment is None or assignment.withdrawn or offset < assignment.next_offset:
            return None
        ticket = Ticket(partition=partition, offset=offset, epoch=assignment.epoch, key=key, item=item)
        assignment.next_offset = offset + 1
        assignment.unfinished.append(offset)
        self._depth += 1
        if key is not None:
            lane = self._lanes.get((partition, key))
            if lane is not None:
                lane.append(ticket)
                return None
            self._lanes[partition, key] = deque()
        self._running.add(ticket)
        return ticket

    def passed(self, positions: Mapping[TopicPartition, int]) -> None:
        """Of what lies below these offsets, all that is a record was taken in: the rest needs no handling."""
        for partition, offset in positions.items():
            if (assignment := self._assignments.get(partition)) is not None and not assignment.withdrawn:
                assignment.next_offset = max(assignment.next_offset, offset)

    def handled(self, ticket: Ticket[Item]) -> Ticket[Item] | None:
        """The handler of `ticket` has ended. Gives the next record of its key, which may run now."""
        self._running.discard(ticket)
        if self._is_current(ticket):
            self._handled.add(ticket)
        return self._next_of_lane(ticket)

    def finished(self, ticket: Ticket[Item]) -> bool:
        """All that `ticket` had to send is delivered. False if its assignment is over: it counts for nothing."""
        self._handled.discard(ticket)
        if not self._is_current(ticket):
            return False
        self._assignments[ticket.partition].finish(ticket.offset)
        self._depth -= 1
        return True

    def given_back(self, ticket: Ticket[Item]) -> Ticket[Item] | None:
        """A record of a withdrawn partition ends unprocessed: whoever owns the partition next gets it again.

        Gives the next record of its key, which may run now: there is one only if the partition has become ours again.
        """
        self._running.discard(ticket)
        return self._next_of_lane(ticket)

    def begin(self, ticket: Ticket[Item]) -> bool:
        """A running record's handler is about to be called. False if it must not: the partition was withdrawn."""
        if not self.wanted(ticket):
            return False
        ticket.begun = True
        assignment = self._assignments[ticket.partition]
        if ticket.offset >= assignment.begun_below:
            assignment.begun_below = ticket.offset + 1
        return True

    def wanted(self, ticket: Ticket[Item]) -> bool:
        """Whether `ticket` should be worked on: its assignment holds and was not withdrawn."""
        assignment = self._assignments.get(ticket.partition)
        return assignment is not None and assignment.epoch == ticket.epoch and not assignment.withdrawn

    def withdraw(self, partitions: Iterable[TopicPartition]) -> int:
        """Take in no more of `partitions`, forget what has not begun. Gives how many were forgotten."""
        leaving = set(partitions)
        for partition in leaving & self._assignments.keys():
            self._assignments[partition].withdrawn = True
        forgotten = 0
        for (partition, _), lane in self._lanes.items():
            if partition in leaving:
                forgotten += len(lane)
                lane.clear()
        for ticket in [one for one in self._running if not one.begun and one.partition in leaving]:
            self._running.discard(ticket)
            forgotten += 1
            if ticket.key is not None:
                del self._lanes[ticket.partition, ticket.key]
        return forgotten

    def drop(self, partitions: Iterable[TopicPartition]) -> None:
        """The assignment of `partitions` is over. Whatever still runs for it commits nothing from now on."""
        gone = set(partitions)
        self.withdraw(gone)
        for partition in gone:
            assignment = self._assignments.pop(partition, None)
            if assignment is not None:
                self._depth -= assignment.depth
        self._handled = {ticket for ticket in self._handled if ticket.partition not in gone}
        self._paused -= gone

    def running(self, partitions: Collection[TopicPartition] | None = None) -> list[Ticket[Item]]:
        """The records that run (of `partitions`, or all), also those whose assignment is over."""
        return [ticket for ticket in self._running if partitions is None or ticket.partition in partitions]

    def undelivered(self, partitions: Collection[TopicPartition] | None = None) -> int:
        """How many records (of `partitions`, or all) are handled and wait for a delivery report."""
        return sum(1 for ticket in self._handled if partitions is None or ticket.partition in partitions)

    def commits(self, partitions: Collection[TopicPartition] | None = None) -> dict[TopicPartition, int]:
        """The next offsets (of `partitions`, or all) that have moved since they were last noted as committed."""
        return {
            partition: position
            for partition, assignment in self._assignments.items()
            if partitions is None or partition in partitions
            if (position := assignment.position) != assignment.committed
        }

    def handover(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """The next offset of each withdrawn partition, and the offset below which all lies that was ever begun here."""
        return {
            partition: (assignment.position, assignment.begun_below)
            for partition in partitions
            if (assignment := self._assignments.get(partition)) is not None and assignment.withdrawn
        }

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note offsets as committed (or on their way)."""
        for partition, offset in offsets.items():
            if (assignment := self._assignments.get(partition)) is not None:
                assignment.committed = offset

    def commit_failed(self, partitions: Iterable[TopicPartition]) -> None:
        """A commit did not arrive: `commits` names these partitions again."""
        for partition in partitions:
            if (assignment := self._assignments.get(partition)) is not None:
                assignment.committed = -1

    def to_pause(self) -> frozenset[TopicPartition]:
        """The partitions of which nothing should be fetched now: each that is crowded, or all when there is no room."""
        self._full = self._depth >= self._limit or (self._full and self._depth > self._limit // 2)
        if self._full:
            return frozenset(self._assignments)
        for partition, assignment in self._assignments.items():
            depth = assignment.depth
            if depth >= self._partition_limit:
                self._paused.add(partition)
            elif depth <= self._partition_limit // 2:
                self._paused.discard(partition)
        return frozenset(self._paused)

    def _is_current(self, ticket: Ticket[Item]) -> bool:
        assignment = self._assignments.get(ticket.partition)
        return assignment is not None and assignment.epoch == ticket.epoch

    def _next_of_lane(self, ticket: Ticket[Item]) -> Ticket[Item] | None:
        if ticket.key is None:
            return None
        lane = self._lanes[ticket.partition, ticket.key]
        if not lane:
            del self._lanes[ticket.partition, ticket.key]
            return None
        following = lane.popleft()
        self._running.add(following)
        return following
