"""`TransactionalLog` and `DefinitionLog` over the simulated cluster: what one orchestrator instance holds of it.

Each call passes named points on its way (`at`): there the one who simulates may let the process crash, by an exception
that nothing catches, or let others go on while this one stands still. What the real adapter does on threads (restores)
is done in small portions by `poll`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sagakit.ports.log import (
    Aborted,
    Assigned,
    Batch,
    Change,
    Committed,
    LogUnavailableError,
    OffsetLost,
    Outcome,
    Record,
    Restored,
    Revoked,
    StateRead,
    StateRecord,
    TopicPartition,
    Unknown,
    Work,
)
from sagakit.testing.simulated_cluster import (
    FencedError,
    IllegalGenerationError,
    Member,
    PendingOffsetError,
    SimulatedCluster,
    Transaction,
)

POINTS: Final = (
    "before-poll",
    "after-poll",
    "before-restore",
    "before-reached-end",
    "before-begin",
    "transaction-open",
    "before-commit",
    "after-commit",
    "before-definitions",
)
"""Where a process may crash or stand still."""

_STALLED_AFTER_MS: Final = 2_000
_POLL_MS: Final = 1
_COMMIT_MS: Final = 2

At = Callable[[str], None]
"""Told the point that the instance passes."""


def pass_on(_point: str) -> None:
    """Nothing happens at any point."""


@dataclass(slots=True, kw_only=True)
class _Restore:
    partition: TopicPartition
    state: TopicPartition | None
    read_state: bool
    first_offset: int | None
    progressed_at_ms: int
    committed: int | None = None
    next_offset: int | None = None
    log_start: int = 0
    mark: int = 0
    position: int = 0


class SimulatedLog:
    """The log of one simulated instance.

    `unknown_share` is how often the answer to a commit gets lost: then the work happened or it did not. `wait_ms` says
    how much of an idle poll's waiting time passes: others may have something to do before its end.
    """

    def __init__(
        self,
        cluster: SimulatedCluster,
        *,
        group: str,
        transactional_id: str,
        state_topics: Mapping[str, str],
        batch_records_max: int = 50,
        unknown_share: float = 0.0,
        at: At = pass_on,
        wait_ms: Callable[[int], int] = lambda most: most,
    ) -> None:
        self._cluster = cluster
        self._random = cluster.random
        self._group_name = group
        self._group = cluster.group(group)
        self._transactional_id = transactional_id
        self._state_topics = dict(state_topics)
        self._batch_records_max = batch_records_max
        self._at = at
        self._wait_ms = wait_ms
        self.unknown_share = unknown_share
        self._member: Member | None = None
        self._topics: frozenset[str] = frozenset()
        self._owned: set[TopicPartition] = set()
        self._next: dict[TopicPartition, int] = {}  # running partitions: the next offset, as last committed
        self._position: dict[TopicPartition, int] = {}
        self._restores: dict[TopicPartition, _Restore] = {}
        self._epoch: int | None = cluster.init_transactions(transactional_id)
        self._closed = False

    @property
    def member(self) -> Member | None:
        """The member of the group that this log is."""
        return self._member

    def silence(self, silent: bool) -> None:
        """The process dies or is stopped, and so sends no heartbeat; or it goes on."""
        if self._member is not None:
            self._member.silent_since_ms = self._cluster.clock.now_ms if silent else None

    def subscribe(self, topics: Collection[str]) -> None:
        """Consume these topics, as a member of the group, from now on (in place of what was subscribed before)."""
        self._topics = frozenset(topics)
        if self._member is None:
            self._member = Member(self._topics)
            self._group.members.append(self._member)
        self._member.topics = self._topics
        if self._member in self._group.members:  # else it was put out, and joins anew with the next poll
            self._group.rebalance(self._cluster.partition_counts)

    def poll(self, timeout_s: float) -> Batch:
        """Give what is there; where nothing is, time passes, but never so much that something happens meanwhile."""
        self._at("before-poll")
        self._cluster.pass_time(_POLL_MS)
        if not self._cluster.available:
            self._cluster.pass_time(self._wait_ms(int(timeout_s * 1000)))
            return Batch(changes=(), records=())
        if self._epoch is None:
            self._epoch = self._cluster.init_transactions(self._transactional_id)
        changes = self._rebalanced() + self._lost_while_running() + self._restored()
        records = [] if changes and self._random.random() < 0.5 else self._delivered()
        if not changes and not records:
            self._cluster.pass_time(self._wait_ms(int(timeout_s * 1000)))
        self._at("after-poll")
        return Batch(changes=changes, records=records)

    def restore(self, partition: TopicPartition, first_offset: int | None, *, state: bool = True) -> None:
        """Begin to restore an assigned partition, also one that runs; it is held until `Restored`.

        Raises:
            ValueError: if the partition is not assigned.
        """
        self._at("before-restore")
        if partition not in self._owned:
            raise ValueError(f"{partition} cannot be restored: it is not assigned to this instance")
        self._stop(partition)
        topic = self._state_topics.get(partition.topic)
        place = None if topic is None else TopicPartition(topic, partition.partition)
        self._restores[partition] = _Restore(
            partition=partition,
            state=place,
            read_state=state and place is not None,
            first_offset=first_offset,
            progressed_at_ms=self._cluster.clock.now_ms,
        )

    def reached_end(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Those of `partitions` of which `poll` has already given every record that was in the log at this moment.

        None has while the cluster does not answer.
        """
        self._at("before-reached-end")
        if not self._cluster.available:
            return {}
        ends = {one: self._cluster.logs[one].end for one in partitions if one in self._next}
        return {one: end for one, end in ends.items() if self._position[one] >= end}

    def commit(self, work: Work) -> Outcome:
        """Write the work and its offsets in one transaction, fenced by the group's generation.

        Raises:
            ValueError: if the work has no offsets, or one that is invalid, goes back, or is of a partition that waits
                for its restore: a bug in the caller, and nothing was written.
        """
        self._at("before-begin")
        refusal = self._check(work.offsets)
        outcome = Aborted(reason=refusal) if refusal is not None else self._write(work)
        if isinstance(outcome, Committed):
            self._next.update(work.offsets)
        elif isinstance(outcome, Aborted):
            self._position.update(self._next)
        else:
            self._epoch = None
            for partition in tuple(self._next):
                self._stop(partition)
        return outcome

    def close(self, deadline_s: float) -> None:  # noqa: ARG002 - it takes no time here
        """Leave the group. Again: nothing happens."""
        if self._closed:
            return
        self._closed = True
        if self._member is not None and self._member in self._group.members:
            self._group.leave(self._member, self._cluster.partition_counts)

    # Committing

    def _check(self, offsets: Mapping[TopicPartition, int]) -> str | None:
        """Why the work may not be written now; None if it may."""
        if not offsets:
            raise ValueError("work without offsets: nothing would fence it")
        for partition, offset in offsets.items():
            if offset < 0:
                raise ValueError(f"offset {offset} of {partition} is not explicit: nothing would fence the work")
            if partition not in self._owned:
                return f"{partition} is not assigned to this instance any more"
            committed = self._next.get(partition)
            if committed is None:
                raise ValueError(f"work for {partition}, which has not been restored")
            if offset < committed:
                raise ValueError(f"offset {offset} of {partition} goes back: {committed} is committed")
        return None

    def _write(self, work: Work) -> Outcome:
        cluster = self._cluster
        if self._epoch is None or self._member is None or not cluster.available:
            return Aborted(reason="the cluster does not answer")
        try:
            transaction = cluster.begin(self._transactional_id, self._epoch)
        except FencedError as error:
            return Unknown(reason=str(error))
        try:
            for index, record in enumerate(work.records):
                refused = cluster.refusal(record)
                if refused is not None:
                    cluster.abort(transaction)
                    return Aborted(reason=refused, culprit=index)
                cluster.produce(transaction, record)
            self._at("transaction-open")
            cluster.send_offsets(transaction, self._group_name, self._member, work.offsets)
            self._at("before-commit")
            cluster.pass_time(_COMMIT_MS)
            lost = self._answer_lost(transaction)
            if lost is not None:
                return lost
            cluster.commit(transaction)
        except IllegalGenerationError as error:
            cluster.abort(transaction)
            return Aborted(reason=str(error))
        except FencedError as error:
            return Unknown(reason=str(error))
        self._at("after-commit")
        return Committed()

    def _answer_lost(self, transaction: Transaction) -> Unknown | None:
        """The request to commit, or only the answer to it, gets lost: the transaction stays open, or is committed."""
        if self._cluster.available and self._random.random() >= self.unknown_share:
            return None
        if self._random.random() < 0.5:
            self._cluster.commit(transaction)
        return Unknown(reason="the answer to the commit was lost")

    # Membership

    def _rebalanced(self) -> list[Change]:
        member = self._member
        if member is None:
            return []
        if member not in self._group.members:  # put out while it was silent: all it had is others' by now
            changes: list[Change] = [self._revoke(one) for one in sorted(self._owned)]
            self._member = None
            self.subscribe(self._topics)
            return changes
        member.silent_since_ms = None
        if member.generation == self._group.generation:
            given = self._group.catch_up(member)[1]
            return [self._assign(one) for one in given]
        gone, given = self._group.catch_up(member)
        return [*map(self._revoke, gone), *map(self._assign, given)]

    def _revoke(self, partition: TopicPartition) -> Revoked:
        self._owned.discard(partition)
        self._stop(partition)
        self._restores.pop(partition, None)
        return Revoked(partition=partition)

    def _assign(self, partition: TopicPartition) -> Assigned:
        self._owned.add(partition)
        return Assigned(partition=partition)

    def _stop(self, partition: TopicPartition) -> None:
        self._next.pop(partition, None)
        self._position.pop(partition, None)
        self._restores.pop(partition, None)

    # Reading

    def _delivered(self) -> list[Record]:
        """Some of what is there, of some partitions, in order within each."""
        left = self._random.randint(1, self._batch_records_max)
        running = list(self._next)
        self._random.shuffle(running)
        records: list[Record] = []
        for partition in running:
            found, position = self._cluster.logs[partition].read(self._position[partition], left)
            self._position[partition] = position
            records += found
            left -= len(found)
            if not left:
                break
        return records

    def _lost_while_running(self) -> list[Change]:
        changes: list[Change] = []
        for partition, next_offset in tuple(self._next.items()):
            start = self._cluster.logs[partition].start
            if self._position[partition] < start:
                self._stop(partition)
                changes.append(OffsetLost(partition=partition, committed=next_offset, log_start=start))
        return changes

    # Restoring

    def _restored(self) -> list[Change]:
        changes: list[Change] = []
        for restore in tuple(self._restores.values()):
            if restore.next_offset is not None or self._found(restore, changes):
                self._read_state(restore, changes)
        return changes

    def _found(self, restore: _Restore, changes: list[Change]) -> bool:
        """Find the committed offset, then the mark; False if that is not possible yet, or all there is to it."""
        cluster, partition = self._cluster, restore.partition
        try:
            restore.committed = cluster.committed_offset(self._group_name, partition)
            if restore.state is None and restore.committed is None and self._offsets_are_gone():
                return False
        except PendingOffsetError:
            self._look_after(restore)
            return False
        log = cluster.logs[partition]
        restore.log_start = log.start
        if _is_lost(restore, log.end):
            self._finish(restore, _offset_lost(restore), changes)
            return False
        known = (restore.committed, restore.first_offset, log.start)
        restore.next_offset = next(one for one in known if one is not None)
        restore.progressed_at_ms = cluster.clock.now_ms
        if restore.state is not None and restore.read_state:
            restore.mark, restore.position = cluster.logs[restore.state].end, cluster.logs[restore.state].start
        return True

    def _offsets_are_gone(self) -> bool:
        """As the adapter to real Kafka judges it: the group has no offset in any partition that has state."""
        logs = self._cluster.logs
        with_state = [
            one
            for one in logs
            if (topic := self._state_topics.get(one.topic)) is not None
            and logs[TopicPartition(topic, one.partition)].start < logs[TopicPartition(topic, one.partition)].end
        ]
        committed = [self._cluster.committed_offset(self._group_name, one) for one in with_state]
        return bool(committed) and all(one is None for one in committed)

    def _read_state(self, restore: _Restore, changes: list[Change]) -> None:
        """Read on to the mark, a portion a time."""
        assert restore.next_offset is not None
        while restore.state is not None and restore.position < restore.mark:
            records, position = self._cluster.logs[restore.state].read(restore.position, self._random.randint(1, 20))
            if position == restore.position:
                return self._look_after(restore)
            restore.position, restore.progressed_at_ms = position, self._cluster.clock.now_ms
            if records and restore.committed is None:  # state without an offset: what was committed once is gone
                return self._finish(restore, _offset_lost(restore), changes)
            if records:
                changes.append(
                    StateRead(
                        partition=restore.partition,
                        records=[StateRecord(one.key, one.value, one.headers) for one in records],
                    )
                )
            if restore.position < restore.mark and self._random.random() < 0.3:
                return None  # the rest comes with a later poll
        self._next[restore.partition] = self._position[restore.partition] = restore.next_offset
        restored = Restored(partition=restore.partition, next_offset=restore.next_offset)
        return self._finish(restore, restored, changes)

    def _finish(self, restore: _Restore, change: Change, changes: list[Change]) -> None:
        del self._restores[restore.partition]
        changes.append(change)

    def _look_after(self, restore: _Restore) -> None:
        """A restore that stands still for long waits for an open transaction: fence the producers that hold it up."""
        now_ms = self._cluster.clock.now_ms
        if restore.state is None or now_ms - restore.progressed_at_ms < _STALLED_AFTER_MS:
            return
        restore.progressed_at_ms = now_ms
        for transaction in self._cluster.logs[restore.state].open_transactions:
            if transaction.transactional_id != self._transactional_id:
                self._cluster.init_transactions(transaction.transactional_id)


def _is_lost(restore: _Restore, log_end: int) -> bool:
    """Whether records of the partition were lost, as far as offsets tell; as the adapter to real Kafka judges it."""
    if restore.committed is not None:
        return not restore.log_start <= restore.committed <= log_end
    if restore.first_offset is not None:
        return restore.first_offset < restore.log_start
    return restore.state is not None and restore.log_start > 0


def _offset_lost(restore: _Restore) -> OffsetLost:
    return OffsetLost(partition=restore.partition, committed=restore.committed, log_start=restore.log_start)


class SimulatedDefinitionLog:
    """The topic of definitions, read from its start."""

    def __init__(self, cluster: SimulatedCluster, topic: str, at: At = pass_on) -> None:
        self._cluster = cluster
        self._partition = TopicPartition(topic, 0)
        self._at = at
        self._position = 0

    def read_new(self) -> Sequence[Record]:
        """All records since the last call, up to the high watermark.

        Raises:
            LogUnavailableError: when the end cannot be reached; the same records come with the next call.
        """
        self._at("before-definitions")
        log = self._cluster.logs[self._partition]
        if not self._cluster.available or log.stable_end < log.end:
            raise LogUnavailableError(f"{self._partition.topic} cannot be read to its end")
        records, self._position = log.read(self._position, log.end)
        return records
