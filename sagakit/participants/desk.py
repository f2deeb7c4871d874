"""The worklist behind one lock: what the polling thread and the workers share."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from sagakit.participants.worklist import Ticket, Worklist
from sagakit.ports.log import Record, TopicPartition

Job = Ticket[Record]


class Desk:
    """Where workers take records and hand them back. Every method may be called from any thread."""

    def __init__(self, worklist: Worklist[Record], clock: Callable[[], float]) -> None:
        """Begin with nothing in work. `clock` gives seconds that never go back."""
        self._worklist = worklist
        self._fresh_from: dict[TopicPartition, int] = {}
        self._clock = clock
        self._changed = threading.Condition()
        self._waiters = 0

    def admit(self, records: Sequence[Record]) -> list[Job]:
        """Take records in; gives those that may run now."""
        with self._changed:
            admit = self._worklist.admit
            return [
                job
                for record in records
                if (job := admit(TopicPartition(record[0], record[1]), record.offset, record.key, record)) is not None
            ]

    def intake(self) -> tuple[int, frozenset[TopicPartition], bool]:
        """How many records there is room for, which partitions to pause, and whether delivery reports are awaited."""
        with self._changed:
            return self._worklist.room, self._worklist.to_pause(), self._worklist.awaits_delivery

    def begin(self, job: Job) -> bool:
        """See `Worklist.begin`."""
        with self._changed:
            return self._worklist.begin(job)

    def wanted(self, job: Job) -> bool:
        """See `Worklist.wanted`."""
        with self._changed:
            return self._worklist.wanted(job)

    def handled(self, job: Job) -> Job | None:
        """See `Worklist.handled`."""
        with self._changed:
            following = self._worklist.handled(job)
            self._notify()
            return following

    def given_back(self, job: Job) -> Job | None:
        """See `Worklist.given_back`."""
        with self._changed:
            following = self._worklist.given_back(job)
            self._notify()
            return following

    def finished(self, job: Job) -> bool:
        """See `Worklist.finished`."""
        with self._changed:
            return self._worklist.finished(job)

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait before `job` is tried again. False, at once, when it is not wanted any more."""
        with self._changed:
            self._wait(lambda: not self._worklist.wanted(job), seconds)
            return self._worklist.wanted(job)

    def assign(self, offsets: Mapping[TopicPartition, int], begun_below: Mapping[TopicPartition, int]) -> None:
        """Partitions have become ours, from these offsets on; see `AssignmentListener.on_assigned`."""
        with self._changed:
            for partition, offset in offsets.items():
                self._worklist.assign(partition, offset)
                self._fresh_from[partition] = begun_below[partition]

    def may_have_begun(self, job: Job) -> bool:
        """Whether an earlier owner of the partition may have begun this record, and died before it said so."""
        record = job.item
        return record.offset < self._fresh_from.get(TopicPartition(record.topic, record.partition), 0)

    def passed(self, positions: Mapping[TopicPartition, int]) -> None:
        """See `Worklist.passed`."""
        with self._changed:
            self._worklist.passed(positions)

    def withdraw(self, partitions: Collection[TopicPartition]) -> int:
        """See `Worklist.withdraw`. Those who `wait` for a record of these partitions stop waiting."""
        with self._changed:
            waiting = self._worklist.withdraw(partitions)
            self._notify()
            return waiting

    def wait_for_handlers(self, partitions: Collection[TopicPartition] | None, deadline: float) -> list[Job]:
        """Wait until no handler runs for `partitions`, or until `deadline` by the clock; gives those that still do."""
        with self._changed:
            self._wait(lambda: not self._worklist.running(partitions), max(0.0, deadline - self._clock()))
            return self._worklist.running(partitions)

    def undelivered(self, partitions: Collection[TopicPartition]) -> int:
        """See `Worklist.undelivered`."""
        with self._changed:
            return self._worklist.undelivered(partitions)

    def take_commits(self, partitions: Collection[TopicPartition] | None = None) -> dict[TopicPartition, int]:
        """The offsets to commit now, noted as committed; `commit_failed` takes that back."""
        with self._changed:
            offsets = self._worklist.commits(partitions)
            self._worklist.committed(offsets)
            return offsets

    def take_handover(
        self, partitions: Collection[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """The last offsets of withdrawn partitions, noted as committed, and below which ones anyone has begun."""
        with self._changed:
            leaving = self._worklist.handover(partitions)
            offsets = {partition: position for partition, (position, _) in leaving.items()}
            self._worklist.committed(offsets)
            return offsets, {
                partition: max(begun, self._fresh_from.get(partition, 0)) for partition, (_, begun) in leaving.items()
            }

    def commit_failed(self, partitions: Collection[TopicPartition]) -> None:
        """See `Worklist.commit_failed`."""
        with self._changed:
            self._worklist.commit_failed(partitions)

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """See `Worklist.drop`."""
        with self._changed:
            self._worklist.drop(partitions)
            self._notify()

    def _wait(self, predicate: Callable[[], bool], seconds: float) -> None:
        self._waiters += 1
        try:
            self._changed.wait_for(predicate, seconds)
        finally:
            self._waiters -= 1

    def _notify(self) -> None:
        if self._waiters:  # nearly never, and then the wake-up is worth its price
            self._changed.notify_all()
