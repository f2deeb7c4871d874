"""`TransactionalLog` over a real Kafka: one group consumer, one transactional producer, one thread that calls them.

Fencing rests on two things together: the group's generation, which the broker checks for every transaction because an
explicit offset goes with it, and our own set of owned partitions, since the broker checks the member and no partition.
"""

import logging
import threading
import time
from collections.abc import Collection, Mapping
from typing import Final

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_consumer import GroupConsumer
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_producer import TransactionalProducer
from sagakit.adapters.kafka_records import client_partition
from sagakit.adapters.kafka_restore import Restorer
from sagakit.ports.log import (
    Aborted,
    Batch,
    Change,
    Committed,
    LogUnavailableError,
    Outcome,
    Record,
    Restored,
    Revoked,
    TopicPartition,
    Unknown,
    Work,
)

_logger = logging.getLogger(__name__)

# The client serves a rebalance within a poll but returns only for a record: shorter polls hand the changes over sooner.
_POLL_S: Final = 0.05
_POLL_RESTORING_S: Final = 0.005

_END_TIMEOUT_S: Final = 1.0
_SILENT_S: Final = 5.0

# Between tries to begin a producer that is refused: each try is a new connection.
_BEGIN_PAUSE_S: Final = 0.25
_BEGIN_PAUSE_MAX_S: Final = 8.0


class KafkaLog:
    """The log of one orchestrator instance. Every method is to be called from one thread.

    Raises:
        ClientPropertyError: if a client property is refused.
        LogUnavailableError: if the broker does not answer, or refuses the transactional id (fatal).
    """

    def __init__(
        self,
        properties: ClientProperties,
        *,
        group: str,
        transactional_id: str,
        state_topics: Mapping[str, str],
        client_id: str | None = None,
        batch_records_max: int = 2_000,
    ) -> None:
        """Connect, and end what an earlier process with this `transactional_id` left open.

        `transactional_id` is unique to the instance and, best, the same after a restart. `state_topics` maps each topic
        that has state to the topic of that state, partition by partition. `client_id` is how the group's coordinator
        names this member to others. A batch has at most `batch_records_max` records.
        """
        self._producer = TransactionalProducer(properties, transactional_id, frozenset(state_topics.values()))
        self._offsets = Offsets(properties)
        self._consumer = GroupConsumer(properties, group, batch_records_max, self._offsets, client_id)
        self._restorer = Restorer(properties, group, transactional_id, state_topics, self._offsets)
        self._closed = False
        self._closing = threading.Event()
        self._refusal: LogUnavailableError | None = None
        self._read: list[Change] = []  # of restores, and not handed over yet
        self._silent: dict[TopicPartition, float] = {}  # whose leader did not answer; when to ask again
        self._begin_at, self._begin_pause_s = 0.0, _BEGIN_PAUSE_S
        self._wanted: dict[
            TopicPartition, tuple[int | None, bool]
        ] = {}  # restores that wait until the producer is settled

    def subscribe(self, topics: Collection[str]) -> None:
        """Consume these topics, as a member of the group, from now on (in place of what was subscribed before)."""
        self._consumer.subscribe(topics)

    def poll(self, timeout_s: float) -> Batch:
        """Wait up to `timeout_s` for a first record or change, then take what is there already.

        Raises:
            LogUnavailableError: if the broker refuses this member or a restore: for good if fatal; else (for lack of
                rights) after the waiting time, and the next call tries again. Nothing is lost by it.
        """
        end = time.monotonic() + timeout_s
        while self._refusal is None or time.monotonic() < end:
            changes, records = self._poll_once(end)
            if changes or records:
                return Batch(changes=changes, records=records)
            if time.monotonic() >= end:
                break
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal
        return Batch(changes=(), records=())

    def _poll_once(self, end: float) -> tuple[list[Change], list[Record]]:
        """One look at everything; what is refused is noted, and keeps nothing else from being looked at."""
        rebalanced: list[Change] = []
        records: list[Record] = []
        try:
            self._begin_wanted()
            self._read += self._restored()
        except LogUnavailableError as error:
            self._note(error)
        limit = 0.0 if self._read else _POLL_RESTORING_S if self._restorer.active else _POLL_S
        try:
            rebalanced, records = self._consumer.poll(max(0.0, min(limit, end - time.monotonic())))
        except LogUnavailableError as error:
            self._note(error)
        gone = {change.partition for change in rebalanced if isinstance(change, Revoked)}
        for partition in gone:
            self._wanted.pop(partition, None)
            self._restorer.cancel(partition)
        changes, self._read = self._read, []
        return [one for one in changes if one.partition not in gone] + rebalanced, records

    def _note(self, error: LogUnavailableError) -> None:
        if error.fatal:
            raise error
        self._refusal = error

    def restore(self, partition: TopicPartition, first_offset: int | None, *, state: bool = True) -> None:
        """Begin to restore an assigned partition, also one that runs; it is held until `Restored`.

        The offset counts as lost if it does not lie within the log; if none is committed although the partition has
        committed state, or `first_offset` lies before the log's start; or if neither is given and the log of a
        partition that has state no longer starts at 0.

        Raises:
            ValueError: if the partition is not assigned to this member.
        """
        if partition not in self._consumer.owned:
            raise ValueError(f"{partition} cannot be restored: it is not assigned to this instance")
        self._consumer.stop([partition])
        self._restorer.cancel(partition)
        self._read = [change for change in self._read if change.partition != partition]
        self._wanted[partition] = (first_offset, state)  # begun by the next poll

    def reached_end(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Those of `partitions` of which `poll` has already given every record that was in the log at this moment.

        One request per broker, for any number of partitions. One whose leader does not answer has not reached its end,
        and is not asked for again for a moment: the others' timers shall not wait for it.
        """
        now = time.monotonic()
        self._silent = {one: until for one, until in self._silent.items() if until > now}
        running = [one for one in partitions if one not in self._silent and self._consumer.next_offset(one) is not None]
        ends = self._offsets.known_ends(running, timeout_s=_END_TIMEOUT_S)
        self._silent.update({one: now + _SILENT_S for one in running if one not in ends})
        positions = self._consumer.positions(ends)
        self._consumer.watch(positions, ends)
        return {one: end for one, end in ends.items() if positions[one] >= end}

    def commit(self, work: Work) -> Outcome:
        """Write the work and its offsets in one transaction, fenced by the group's generation.

        After `Unknown` no partition delivers anything until it has been restored.

        Raises:
            ValueError: if the work has no offsets, or one that is invalid, goes back, or is of a partition that waits
                for its restore: a bug in the caller, and nothing was written.
            LogUnavailableError: fatal, if another process uses the same transactional id.
        """
        refusal = self._check(work.offsets)
        if refusal is not None:
            self._consumer.rewind()
            return Aborted(reason=refusal)
        outcome = self._producer.write(
            work.records,
            [client_partition(one, offset) for one, offset in work.offsets.items()],
            self._consumer.group_metadata,
        )
        if isinstance(outcome, Committed):
            for partition, offset in work.offsets.items():
                self._consumer.committed(partition, offset)
        elif isinstance(outcome, Aborted):
            self._consumer.rewind()
        elif isinstance(outcome, Unknown):
            self._consumer.stop_all()
        return outcome

    def close(self, deadline_s: float) -> None:
        """Leave the group and release everything, within `deadline_s`. Again: nothing happens."""
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        end = time.monotonic() + deadline_s
        self._restorer.close(deadline_s / 2)
        for name, close in (("consumer", self._consumer.close), ("producer", self._producer.close)):
            # Neither client's close takes a deadline, and both wait for a broker that may be gone.
            thread = threading.Thread(target=close, name=f"close-{name}", daemon=True)
            thread.start()
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                _logger.warning("the %s did not close within %.1f s; it ends with the process", name, deadline_s)

    def _check(self, offsets: Mapping[TopicPartition, int]) -> str | None:
        """Why the work may not be written now; None if it may."""
        if not offsets:
            raise ValueError("work without offsets: nothing would fence it")
        for partition, offset in offsets.items():
            if offset < 0:
                raise ValueError(f"offset {offset} of {partition} is not explicit: nothing would fence the work")
            if partition not in self._consumer.owned:
                return f"{partition} is not assigned to this instance any more"
            committed = self._consumer.next_offset(partition)
            if committed is None and self._consumer.is_lost(partition):
                return f"records of {partition} were lost"
            if committed is None:
                raise ValueError(f"work for {partition}, which has not been restored")
            if offset < committed:
                raise ValueError(f"offset {offset} of {partition} goes back: {committed} is committed")
        if not self._consumer.is_member:
            return "this instance is no member of the group at the moment"
        return None

    def _restored(self) -> list[Change]:
        changes = self._restorer.take()
        for change in changes:
            if isinstance(change, Restored):
                self._consumer.start(change.partition, change.next_offset)
        return changes

    def _begin_wanted(self) -> None:
        """Begin the restores that were asked for, once no transaction of ours is open whose outcome they would miss."""
        if not self._wanted or time.monotonic() < self._begin_at:
            return
        try:
            settled = self._producer.settle()
        except LogUnavailableError:
            self._begin_at = time.monotonic() + self._begin_pause_s
            self._begin_pause_s = min(2 * self._begin_pause_s, _BEGIN_PAUSE_MAX_S)
            raise
        if settled:
            self._begin_pause_s = _BEGIN_PAUSE_S
            for partition, (first_offset, state) in self._wanted.items():
                self._restorer.begin(partition, first_offset, read_state=state)
            self._wanted.clear()
