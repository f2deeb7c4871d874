"""`Messages` in memory: a group of one member whose rebalances, outages and refusals the test decides."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sagakit.ports.log import Outgoing, Record, TopicPartition
from sagakit.ports.messages import AssignmentListener, Delivery, DeliveryFailure, MessagesUnavailableError

Refuse = Callable[[Outgoing], DeliveryFailure | None]


@dataclass
class MemoryMessages:
    """Records come in by `arrive`; rebalances by `assign`, `revoke` and `lose`, carried out inside the next poll.

    `refuse` decides for each sent record whether its delivery fails; `hold_deliveries` keeps reports back.
    """

    refuse: Refuse = lambda _: None
    hold_deliveries: bool = False
    refuse_commits: bool = False
    position: dict[TopicPartition, int] = field(default_factory=dict)
    failure: MessagesUnavailableError | None = None
    sent: list[Outgoing] = field(default_factory=list)
    delivered: list[Outgoing] = field(default_factory=list)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    begun_below: dict[TopicPartition, int] = field(default_factory=dict)
    paused: frozenset[TopicPartition] = frozenset()
    closed: bool = False
    polls: int = 0
    listener: AssignmentListener | None = None

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._actions: deque[Callable[[AssignmentListener], None]] = deque()
        self._records: defaultdict[TopicPartition, deque[Record]] = defaultdict(deque)
        self._owned: set[TopicPartition] = set()
        self._reports: deque[tuple[Delivery, DeliveryFailure | None]] = deque()

    # What the test does.

    def connect(self, listener: AssignmentListener) -> "MemoryMessages":
        self.listener = listener
        return self

    def arrive(self, *records: Record) -> None:
        with self._changed:
            for record in records:
                self._records[TopicPartition(record.topic, record.partition)].append(record)
            self._changed.notify_all()

    def assign(self, partition: TopicPartition, offset: int = 0, *, begun_below: int = 0) -> None:
        def act(listener: AssignmentListener) -> None:
            self._owned.add(partition)
            listener.on_assigned({partition: offset}, {partition: begun_below})

        self._do(act)

    def revoke(self, partition: TopicPartition) -> None:
        def act(listener: AssignmentListener) -> None:
            listener.on_revoked([partition])
            self._owned.discard(partition)

        self._do(act)

    def lose(self, partition: TopicPartition) -> None:
        def act(listener: AssignmentListener) -> None:
            listener.on_lost([partition])
            self._owned.discard(partition)

        self._do(act)

    def lose_offset(self, partition: TopicPartition) -> None:
        self._do(lambda listener: listener.on_offset_lost(partition, 3, 7))

    def until(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        """Wait until `condition` holds; it is asked again whenever something happens here."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"it never came: {self}"
                self._changed.wait(min(left, 0.05))

    # What the service does.

    def poll(self, timeout_s: float, limit: int) -> Sequence[Record]:
        if (failure := self.failure) is not None:  # the test may take it back meanwhile
            with self._changed:
                self.polls += 1
                self._changed.notify_all()
            raise failure
        self._report()
        with self._changed:
            self.polls += 1
            actions, self._actions = self._actions, deque()
        for act in actions:
            assert self.listener is not None
            act(self.listener)
        with self._changed:
            self._changed.notify_all()
            records = self._take(limit)
            if not records:
                self._changed.wait(timeout_s)
                records = self._take(limit)
        self._report()
        return records

    def send(self, record: Outgoing, delivery: Delivery) -> DeliveryFailure | None:
        with self._changed:
            self.sent.append(record)
            failure = self.refuse(record)
            if failure is None:
                self.delivered.append(record)
            self._reports.append((delivery, failure))
            self._changed.notify_all()
        return None

    def flush(self, timeout_s: float) -> None:
        self._report()

    def commit(
        self,
        offsets: Mapping[TopicPartition, int],
        *,
        wait: bool,
        begun_below: Mapping[TopicPartition, int] | None = None,
    ) -> bool:
        assert offsets.keys() <= self._owned
        with self._changed:
            if self.refuse_commits:
                return False
            self.committed.update(offsets)
            self.begun_below = {one: at for one, at in self.begun_below.items() if one not in offsets}
            self.begun_below.update(begun_below or {})
            self._changed.notify_all()
        return True

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self.paused = frozenset(partitions)

    def positions(self) -> Mapping[TopicPartition, int]:
        with self._changed:
            return dict(self.position)

    def close(self) -> None:
        if self.listener is not None and self._owned:
            self.listener.on_revoked(sorted(self._owned))
        self._owned.clear()
        self.closed = True

    def _do(self, act: Callable[[AssignmentListener], None]) -> None:
        with self._changed:
            self._actions.append(act)
            self._changed.notify_all()

    def _take(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for partition in sorted(self._owned - self.paused):
            waiting = self._records[partition]
            while waiting and len(records) < limit:
                records.append(waiting.popleft())
        return records

    def _report(self) -> None:
        if self.hold_deliveries:
            return
        while self._reports:
            delivery, failure = self._reports.popleft()
            delivery(failure)
            with self._changed:
                self._changed.notify_all()
