"""The one port between the orchestrator's loop and Kafka: a log with transactions.

Real Kafka, the embedded broker and the simulated log implement it and pass one contract suite, so the loop, restore and
timers that are simulated are the very ones that run. A rebalance arrives as changes in a batch, never as a call-back.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
"""Record headers in order; a name may come more than once, and Kafka knows headers without a value."""


class TopicPartition(NamedTuple):
    """One partition of a topic, by the topic's full name."""

    topic: str
    partition: int


class Record(NamedTuple):
    """A record as it was read. `timestamp_ms` is the broker's append time or the producer's, as the topic is set."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class StateRecord(NamedTuple):
    """What a restore needs of a record, no more: there is one for each saga in flight. Value None removes the key."""

    key: bytes | None
    value: bytes | None
    headers: Headers


class Outgoing(NamedTuple):
    """A record to write. `partition` None leaves the choice to murmur2 of the key; value None is a tombstone."""

    topic: str
    partition: int | None
    key: bytes
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A partition is ours now, paused: nothing of it is delivered until `restore` was called and has finished."""

    partition: TopicPartition


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A partition is no longer ours: its memory is to be dropped; nothing of it may be written any more."""

    partition: TopicPartition


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRead:
    """Part of a restore: records of the state partition that belongs to an inbox partition, in log order."""

    partition: TopicPartition
    records: Sequence[StateRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A restore has reached the end of the state; records follow from `next_offset` on, in later batches."""

    partition: TopicPartition
    next_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetLost:
    """The committed offset lies below the log's start, or vanished: records were lost. The partition stands still.

    `committed` is None when the offset itself vanished.
    """

    partition: TopicPartition
    committed: int | None
    log_start: int


Change: TypeAlias = Assigned | Revoked | StateRead | Restored | OffsetLost


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one poll gave: first apply `changes`, in order, then `records`, in order within each partition."""

    changes: Sequence[Change]
    records: Sequence[Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One cycle's output: all of it happens, or none.

    `offsets` is the explicit next offset of every partition from which a record came or whose sagas are written. Never
    empty: an empty list (or the invalid offset) is dropped by the client in silence and fences nothing.
    """

    records: Sequence[Outgoing]
    offsets: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The work is durable and visible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """Nothing of the work happened. The log delivers again, from the last committed offsets on; memory stays valid.

    `culprit` is the index in `Work.records` of a record that the broker refuses, where that is the reason; trying the
    same record again would abort for ever.
    """

    reason: str
    culprit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """The work happened or it did not. Memory is worthless: drop it and restore every partition that is still owned."""

    reason: str


Outcome: TypeAlias = Committed | Aborted | Unknown


class LogUnavailableError(Exception):
    """The broker does not answer or lacks our rights: try again. Or it refuses this process for good (`fatal`)."""

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


class TransactionalLog(Protocol):
    """A consumer and a transactional producer, seen as one."""

    def subscribe(self, topics: Collection[str]) -> None:
        """Consume these topics, as a member of the group, from now on (in place of what was subscribed before)."""
        ...

    def poll(self, timeout_s: float) -> Batch:
        """Wait up to `timeout_s` for a first record or change, then take what is there already.

        Raises:
            LogUnavailableError: Kafka refuses something. Unless it is fatal the next call tries again, and nothing is
                lost by it.
        """
        ...

    def restore(self, partition: TopicPartition, first_offset: int | None, *, state: bool = True) -> None:
        """Begin to restore an assigned partition; `StateRead` and `Restored` come with later batches.

        A partition without a committed offset begins at `first_offset`; None means the start of the log. Partitions of
        topics that have no state belonging to them (triggers) give `Restored` alone. So does `state=False`, which only
        delivers again from the committed offset on: the caller's memory of the partition is still right. May be called
        again at any time while the partition is ours; what an earlier call would still have given is dropped.
        """
        ...

    def reached_end(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Those of `partitions` of which `poll` has already given every record that was in the log at this moment.

        Each with the offset from which nothing was there: it lies beyond the last record by the markers that ended
        transactions. A record behind the last stable offset counts as there: a partition with an open transaction has
        not reached its end.
        """
        ...

    def commit(self, work: Work) -> Outcome:
        """Write the work and its offsets in one transaction, fenced by the group's generation."""
        ...

    def close(self, deadline_s: float) -> None:
        """Leave the group and release everything, within `deadline_s`."""
        ...


class DefinitionLog(Protocol):
    """The topic of published definitions, read from its start by every process."""

    def read_new(self) -> Sequence[Record]:
        """All records since the last call, up to the high watermark taken within this call.

        Raises:
            LogUnavailableError: when the end could not be reached in time; the same records come with the next call.
        """
        ...
