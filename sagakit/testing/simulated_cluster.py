"""Kafka as far as the port can see it, in memory, in one thread, under a virtual clock: the broker's side.

Partitions with offsets that control records take too, transactions that are open, committed or aborted, the last stable
offset, a group with generations and members, pending transactional offsets, purging and compaction. What real Kafka
does wrongly for our purposes is modelled as it is: the coordinator checks the member and never the partition, and the
end of a transaction checks no generation at all.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter
from random import Random
from typing import Final, NamedTuple

from sagakit.core.placement import partition_of
from sagakit.ports.log import Headers, Outgoing, Record, TopicPartition

SESSION_TIMEOUT_MS: Final = 6_000
"""A member that is silent for so long is put out of its group, unless the cluster is made with another limit."""

TRANSACTION_TIMEOUT_MS: Final = 10_000
"""A transaction that is open for so long is aborted by the broker."""

DELETE_RETENTION_MS: Final = 86_400_000
"""How long compaction keeps a tombstone."""

RECORD_BYTES_MAX: Final = 1_000_000
"""What a topic takes, unless it was made with another limit."""


class SimulatedClock:
    """The brokers' time, epoch milliseconds. It stands still unless somebody lets it pass."""

    def __init__(self, now_ms: int = 1_760_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        """The present time."""
        return self.now_ms

    def pass_ms(self, milliseconds: int) -> None:
        """Let time pass."""
        self.now_ms += milliseconds


class FencedError(Exception):
    """Another producer took over the transactional id, or the broker ended the transaction: fatal for this producer."""


class IllegalGenerationError(Exception):
    """The group does not know the member any more, or not with this generation."""


class PendingOffsetError(Exception):
    """An open transaction holds an offset of the partition, so what is committed is not known yet."""


class Status(Enum):
    """Where a transaction stands."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Transaction:
    """What one producer writes between its begin and its end."""

    transactional_id: str
    epoch: int
    began_ms: int
    status: Status = Status.OPEN
    partitions: dict["PartitionLog", None] = field(default_factory=dict)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    group: str = ""


class Stored(NamedTuple):
    """One offset of a partition: a record, or None for a control record, and the transaction that wrote it."""

    offset: int
    record: Record | None
    transaction: Transaction | None

    @property
    def committed(self) -> bool:
        """Whether a reader of committed records is given it."""
        return self.record is not None and (self.transaction is None or self.transaction.status is Status.COMMITTED)


_offset = attrgetter("offset")


class PartitionLog:
    """The log of one partition. `written` keeps everything, also what was purged or compacted: for those who check."""

    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self.written: list[Stored] = []
        self._kept: list[Stored] = []
        self._open: dict[Transaction, int] = {}

    @property
    def stable_end(self) -> int:
        """The last stable offset: where the earliest open transaction begins, else the end."""
        return next(iter(self._open.values()), self.end)

    @property
    def open_transactions(self) -> Collection[Transaction]:
        """The transactions that hold the last stable offset back."""
        return tuple(self._open)

    def append(self, record: Record | None, transaction: Transaction | None) -> int:
        """Write at the end; gives the offset."""
        stored = Stored(self.end, record, transaction)
        if transaction is not None and record is not None:
            self._open.setdefault(transaction, stored.offset)
            transaction.partitions[self] = None
        self._kept.append(stored)
        self.written.append(stored)
        self.end += 1
        return stored.offset

    def finish(self, transaction: Transaction) -> None:
        """Write the control record that ends a transaction here."""
        del self._open[transaction]
        self.append(None, transaction)

    def read(self, position: int, most: int) -> tuple[list[Record], int]:
        """Up to `most` committed records from `position` on, and the position after what was looked at."""
        stable_end = self.stable_end
        found: list[Record] = []
        for index in range(bisect_left(self._kept, position, key=_offset), len(self._kept)):
            stored = self._kept[index]
            if stored.offset >= stable_end or len(found) == most:
                break
            position = stored.offset + 1
            if stored.committed and stored.record is not None:
                found.append(stored.record)
        else:
            position = max(position, stable_end)
        return found, position

    def purge(self, before: int) -> None:
        """Delete what lies below `before` (at most the stable end), as DeleteRecords does."""
        self.start = max(self.start, min(before, self.stable_end))
        del self._kept[: bisect_left(self._kept, self.start, key=_offset)]

    def compact(self, before: int, now_ms: int) -> None:
        """Keep only the last committed record of each key below `before`; the tail and open transactions stay whole."""
        before = min(before, self.stable_end)
        latest = {
            one.record.key: one.offset
            for one in self._kept
            if one.offset < before and one.committed and one.record is not None
        }
        later = {one.record.key for one in self._kept if one.offset >= before and one.record is not None}
        self._kept = [one for one in self._kept if one.offset >= before or self._survives(one, latest, now_ms, later)]

    @staticmethod
    def _survives(
        stored: Stored, latest: Mapping[bytes | None, int], now_ms: int, later: Collection[bytes | None]
    ) -> bool:
        record = stored.record
        if record is None or not stored.committed or latest[record.key] != stored.offset:
            return False
        expired = now_ms - record.timestamp_ms > DELETE_RETENTION_MS
        return record.value is not None or not expired or record.key in later


@dataclass(slots=True, eq=False)
class Member:
    """One member of a group. `silent_since_ms` is set while its process is dead or stopped: it sends no heartbeat."""

    topics: frozenset[str]
    generation: int = 0
    silent_since_ms: int | None = None


class Group:
    """A consumer group under a cooperative protocol: a partition is given only after its owner has let go of it."""

    def __init__(self, random: Random) -> None:
        self.generation = 0
        self.committed: dict[TopicPartition, int] = {}
        self.pending: defaultdict[TopicPartition, set[Transaction]] = defaultdict(set)
        self.members: list[Member] = []
        self.owners: dict[TopicPartition, Member] = {}
        self._target: dict[TopicPartition, Member] = {}
        self._random = random

    def rebalance(self, partitions: Mapping[str, int], *, shuffle: bool = False) -> None:
        """Decide anew who is to own what: evenly, and else as before unless `shuffle`."""
        self.generation += 1
        self._target.clear()
        for topic in sorted({topic for member in self.members for topic in member.topics}):
            members = [member for member in self.members if topic in member.topics]
            self._random.shuffle(members)
            every = [TopicPartition(topic, number) for number in range(partitions[topic])]
            left = {member: -(-len(every) // len(members)) for member in members}
            homeless = []
            for one in every:
                owner = self.owners.get(one)
                if owner is not None and left.get(owner) and not shuffle:
                    self._target[one] = owner
                    left[owner] -= 1
                else:
                    homeless.append(one)
            for one in homeless:
                heir = max(members, key=left.__getitem__)
                self._target[one] = heir
                left[heir] -= 1

    def catch_up(self, member: Member) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """What a member that polls has to let go of and what it is given; it then has the group's generation."""
        member.generation = self.generation
        gone = [one for one, owner in self.owners.items() if owner is member and self._target.get(one) is not member]
        for one in gone:
            del self.owners[one]
        given = [one for one, heir in self._target.items() if heir is member and one not in self.owners]
        self.owners.update(dict.fromkeys(given, member))
        return gone, given

    def leave(self, member: Member, partitions: Mapping[str, int]) -> None:
        """A member has left, or was put out: what it owned is free at once."""
        self.members.remove(member)
        self.owners = {one: owner for one, owner in self.owners.items() if owner is not member}
        self.rebalance(partitions)


class SimulatedCluster:
    """Topics, transactions and groups. `available` False: no request is answered."""

    def __init__(
        self,
        topics: Mapping[str, int],
        clock: SimulatedClock,
        random: Random,
        record_bytes_max: Mapping[str, int] | None = None,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
    ) -> None:
        self.clock = clock
        self.session_timeout_ms = session_timeout_ms
        self.random = random
        self.available = True
        self.partition_counts = dict(topics)
        self.logs = {
            TopicPartition(topic, number): PartitionLog() for topic, count in topics.items() for number in range(count)
        }
        self.record_bytes_max = dict(record_bytes_max or {})
        self._groups: dict[str, Group] = {}
        self._epochs: defaultdict[str, int] = defaultdict(int)
        self._open: dict[str, Transaction] = {}

    def group(self, name: str) -> Group:
        """A group, made at first use."""
        if name not in self._groups:
            self._groups[name] = Group(self.random)
        return self._groups[name]

    def pass_time(self, milliseconds: int) -> None:
        """Let time pass: sessions end and transactions time out."""
        self.clock.pass_ms(milliseconds)
        now_ms = self.clock.now_ms
        for group in self._groups.values():
            for member in tuple(group.members):
                if member.silent_since_ms is not None and now_ms - member.silent_since_ms >= self.session_timeout_ms:
                    group.leave(member, self.partition_counts)
        for transaction in tuple(self._open.values()):
            if now_ms - transaction.began_ms >= TRANSACTION_TIMEOUT_MS:
                self._epochs[transaction.transactional_id] += 1
                self._finish(transaction, Status.ABORTED)

    # Plain producers and consumers

    def append(
        self, topic: str, partition: int | None, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Record:
        """Write one record without a transaction."""
        number = partition_of(key or b"", self.partition_counts[topic]) if partition is None else partition
        return self._append(topic, number, key, value, headers, None)

    def written(self, topic: str) -> list[Record]:
        """Every committed record that was ever written to a topic, partition by partition."""
        return [
            stored.record
            for partition, log in self.logs.items()
            if partition.topic == topic
            for stored in log.written
            if stored.committed and stored.record is not None
        ]

    # Transactions

    def init_transactions(self, transactional_id: str) -> int:
        """Take a transactional id over: whoever had it is fenced, what it left open is aborted. Gives the new epoch."""
        self._epochs[transactional_id] += 1
        transaction = self._open.get(transactional_id)
        if transaction is not None:
            self._finish(transaction, Status.ABORTED)
        return self._epochs[transactional_id]

    def begin(self, transactional_id: str, epoch: int) -> Transaction:
        """Begin a transaction.

        Raises:
            FencedError: the id has been taken over.
        """
        if self._epochs[transactional_id] != epoch:
            raise FencedError(f"{transactional_id} was taken over")
        transaction = Transaction(transactional_id, epoch, self.clock.now_ms)
        self._open[transactional_id] = transaction
        return transaction

    def refusal(self, outgoing: Outgoing) -> str | None:
        """Why the broker will never take this record; None if it will."""
        count = self.partition_counts.get(outgoing.topic)
        if count is None:
            return f"there is no topic {outgoing.topic}"
        if outgoing.partition is not None and not 0 <= outgoing.partition < count:
            return f"{outgoing.topic} has {count} partitions, none numbered {outgoing.partition}"
        size = len(outgoing.key) + len(outgoing.value or b"") + sum(len(n) + len(v or b"") for n, v in outgoing.headers)
        limit = self.record_bytes_max.get(outgoing.topic, RECORD_BYTES_MAX)
        return f"a record of {size} bytes for {outgoing.topic}, which takes {limit}" if size > limit else None

    def produce(self, transaction: Transaction, outgoing: Outgoing) -> None:
        """Write one record in a transaction.

        Raises:
            FencedError: the transaction was ended by somebody else.
        """
        self._check_open(transaction)
        topic, partition, key, value, headers = outgoing
        number = partition_of(key, self.partition_counts[topic]) if partition is None else partition
        self._append(topic, number, key, value, headers, transaction)

    def send_offsets(
        self, transaction: Transaction, group: str, member: Member, offsets: Mapping[TopicPartition, int]
    ) -> None:
        """Put offsets into a transaction. The member and its generation are checked, the partitions are not.

        Raises:
            FencedError: the transaction was ended by somebody else.
            IllegalGenerationError: the member is unknown, or has fallen behind.
        """
        self._check_open(transaction)
        explicit = {partition: offset for partition, offset in offsets.items() if offset >= 0}
        if not explicit:
            return  # the client drops invalid offsets and makes no request for an empty list: nothing is checked
        known = self.group(group)
        if member not in known.members:
            raise IllegalGenerationError("the group does not know this member")
        # While a rebalance is under way the coordinator takes the generation before; when it ends only chance knows.
        if member.generation != known.generation and self.random.random() < 0.5:
            raise IllegalGenerationError(f"generation {member.generation}, the group is at {known.generation}")
        transaction.group = group
        transaction.offsets.update(explicit)
        for partition in explicit:
            known.pending[partition].add(transaction)

    def commit(self, transaction: Transaction) -> None:
        """Commit a transaction. Nothing but the producer's epoch is checked.

        Raises:
            FencedError: the transaction was ended by somebody else.
        """
        self._check_open(transaction)
        self._finish(transaction, Status.COMMITTED)

    def abort(self, transaction: Transaction) -> None:
        """Abort a transaction; one that was ended by somebody else is aborted already."""
        if transaction.status is Status.OPEN:
            self._finish(transaction, Status.ABORTED)

    def committed_offset(self, group: str, partition: TopicPartition) -> int | None:
        """The group's committed offset.

        Raises:
            PendingOffsetError: an open transaction will change it, or not.
        """
        known = self.group(group)
        if known.pending[partition]:
            raise PendingOffsetError(str(partition))
        return known.committed.get(partition)

    def _append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        transaction: Transaction | None,
    ) -> Record:
        log = self.logs[TopicPartition(topic, partition)]
        record = Record(topic, partition, log.end, self.clock.now_ms, key, value, tuple(headers))
        log.append(record, transaction)
        return record

    def _check_open(self, transaction: Transaction) -> None:
        if transaction.status is not Status.OPEN or self._epochs[transaction.transactional_id] != transaction.epoch:
            raise FencedError(f"the transaction of {transaction.transactional_id} was ended by another")

    def _finish(self, transaction: Transaction, status: Status) -> None:
        transaction.status = status
        del self._open[transaction.transactional_id]
        for log in transaction.partitions:
            log.finish(transaction)
        group = self.group(transaction.group)
        for partition, offset in transaction.offsets.items():
            group.pending[partition].discard(transaction)
            if status is Status.COMMITTED:
                group.committed[partition] = offset
