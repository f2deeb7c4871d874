"""The port between a participant and Kafka: a consumer of commands and events, and a producer of replies.

Unlike `TransactionalLog` there is no transaction in it: a reply may be sent twice (the orchestrator matches command
ids), and a rebalance must wait for handlers that run. So what happens to an assignment arrives through a listener,
called inside `poll` and `close` and on their thread, and the partition leaves only when the call returns.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from sagakit.ports.log import Outgoing, Record, TopicPartition


class Undelivered(Enum):
    """Why a record was not delivered, by what helps."""

    TOO_LARGE = "too large"
    """The broker or the client refuses its size; a smaller record will do."""
    REFUSED = "refused"
    """The same record will be refused for ever: no such topic or partition, or bytes that the broker calls invalid."""
    LATER = "later"
    """The broker did not answer, or refuses for now (also for missing rights): send it again after a pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailure:
    """A record was not delivered: why, and in the client's own words."""

    kind: Undelivered
    reason: str


Delivery: TypeAlias = Callable[[DeliveryFailure | None], None]
"""Called once per sent record, inside `poll`, `flush` or `close`: None when the brokers have it."""


class AssignmentListener(Protocol):
    """What a participant does when partitions come and go."""

    def on_assigned(self, offsets: Mapping[TopicPartition, int], begun_below: Mapping[TopicPartition, int]) -> None:
        """These partitions are ours, and their records follow from these offsets on.

        No record at or above `begun_below`, which has them all, was begun by an earlier owner: the last one has said so
        when it handed over, or (it died, or never said) it is where the log ended when the partition became ours.
        """
        ...

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions leave when this returns. Until then they are ours: what has ended may be committed."""
        ...

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions have left already, perhaps long ago. Nothing of them may be committed any more."""
        ...

    def on_offset_lost(self, partition: TopicPartition, committed: int | None, log_start: int | None) -> None:
        """Records of this partition were deleted before anyone handled them, so it stands still.

        The committed offset lies below the log's start, or vanished (None) although the group had begun with this
        topic. `log_start` is None if the broker did not tell. An operator decides where to go on: set the group's
        offset and restart.
        """
        ...

    def on_commit_failed(self, partitions: Collection[TopicPartition]) -> None:
        """An earlier commit without waiting did not arrive for these partitions."""
        ...


class MessagesUnavailableError(Exception):
    """Kafka refuses what may come back (rights): poll again. Or, if `fatal`, this client can go on no more."""

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


class Messages(Protocol):
    """One member of a consumer group with its producer.

    `send` may be called from any thread; everything else from one thread only, the one that polls.
    """

    def poll(self, timeout_s: float, limit: int) -> Sequence[Record]:
        """Wait up to `timeout_s` for a first record, then take what is there already, up to `limit` records.

        With `limit` 0 it only serves the listener and delivery reports; call it so while there is no room for more.

        Raises:
            MessagesUnavailableError: Kafka refuses something. Unless it is fatal the next call tries again, and
                nothing is lost by it.
        """
        ...

    def send(self, record: Outgoing, delivery: Delivery) -> DeliveryFailure | None:
        """Send without waiting. `delivery` is called later, unless a failure is returned: then it never is."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for the delivery of all that was sent. Allowed in a listener."""
        ...

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        *,
        wait: bool,
        begun_below: Mapping[TopicPartition, int] | None = None,
    ) -> bool:
        """Commit next offsets of partitions that are ours. False if it is known to have failed: try them again.

        Without `wait` it is only begun, and a failure is told to the listener. `begun_below` is for the next owner, and
        only for the last commit before a partition leaves: nothing at or above it may be begun from then on. It is
        taken back before the next owner is told of it, so it never outlives another beginning.
        """
        ...

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch nothing of exactly these partitions from now on; others that were paused go on."""
        ...

    def positions(self) -> Mapping[TopicPartition, int]:
        """The offsets below which `poll` has given every record there is, for the partitions of which that is known.

        They may lie beyond the last record: the marks that end transactions, and records of aborted ones, take offsets
        and are never given. Must be called between two polls, when all that the last one gave is in work.
        """
        ...

    def close(self) -> None:
        """Leave the group (through `on_revoked`) and release everything."""
        ...
