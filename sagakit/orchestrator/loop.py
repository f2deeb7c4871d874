"""The orchestrator's loop: poll, decide, commit in one transaction, and only then believe it.

One process has one consumer, one transactional producer and one loop. Nothing here knows Kafka: the log is a port, so
the loop that is simulated is the loop that runs.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

import structlog

from sagakit.core.events import Now, Refusal
from sagakit.orchestrator.blocked import PartitionBlockedError
from sagakit.orchestrator.catalog import Catalog
from sagakit.orchestrator.clock import BrokerClock, Clock
from sagakit.orchestrator.cycle import Cycle, Origin
from sagakit.orchestrator.decider import Decider
from sagakit.orchestrator.memory import PartitionMemory
from sagakit.ports.log import (
    Aborted,
    Assigned,
    Batch,
    Change,
    Committed,
    LogUnavailableError,
    OffsetLost,
    Record,
    Restored,
    Revoked,
    StateRead,
    TopicPartition,
    TransactionalLog,
    Unknown,
)

_log = structlog.get_logger("sagakit.orchestrator")

READ_DEFINITIONS_EVERY_MS: Final = 1000
"""How soon a definition's new trigger topic is subscribed to; nothing published meanwhile is missed."""

IDLE_WAIT_S: Final = 0.25
"""How long a poll waits when no timer is nearer: bounds how late a stop request is seen."""

TIMERS_PER_CYCLE: Final = 500
"""So that a burst of timers after an outage does not starve the records."""

COMPARE_CLOCKS_EVERY_MS: Final = 2_000
"""How often the ends of the inbox are asked for: the record that comes next tells how far the host's clock is off."""

MOVE_ON_EVERY_MS: Final = 60_000
"""How often idle partitions' offsets are moved behind what no consumer is given; retention counts in hours."""

UNAVAILABLE_FOR_MS: Final = 10_000
"""How long the log counts as unavailable: the client, which tries again and again, says so every few seconds."""

_TIMER_WAIT_MS: Final = 5
"""Least wait while a timer is due that partition time does not allow yet."""

_BLOCKED_WAIT_MS: Final = 500
_BLOCKED_WAIT_MAX_MS: Final = 30_000


@dataclass(slots=True)
class Blocked:
    """A partition that stands still, why, how often in a row, and when it is tried again (None: that is under way)."""

    reason: str
    times: int
    retry_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a health endpoint tells. `ready`: all that is owned is restored, nothing stands still or is refused.

    `unavailable`: why Kafka lately refused to serve. `clock_skew_ms`: how far this host is ahead of the brokers.
    """

    owned: int
    restoring: tuple[str, ...]
    blocked: dict[str, str]
    unavailable: str | None
    last_cycle_ms: int
    clock_skew_ms: int

    @property
    def ready(self) -> bool:
        """Whether this instance decides on everything that it owns."""
        return not self.restoring and not self.blocked and self.unavailable is None


class Orchestrator:
    """Runs sagas until it is told to stop."""

    def __init__(self, log: TransactionalLog, catalog: Catalog, decider: Decider, inbox: str, clock: Clock) -> None:
        self._log = log
        self._catalog = catalog
        self._decider = decider
        self._inbox = inbox
        self._clock = BrokerClock(clock, inbox)
        self._memory: dict[TopicPartition, PartitionMemory] = {}
        self._blocked: dict[TopicPartition, Blocked] = {}
        self._trying: dict[TopicPartition, int] = {}
        self._refused: dict[Origin, tuple[Refusal, ...]] = {}
        self._unavailable: str | None = None
        self._unavailable_ms = 0
        self._subscribed: frozenset[str] = frozenset()
        self._read_definitions_at_ms = 0
        self._clocks_compared_ms = 0
        self._moved_on_ms = clock()
        self._last_cycle_ms = clock()

    def run(self, stopping: Callable[[], bool]) -> None:
        """Cycle until `stopping` says so.

        Raises:
            LogUnavailableError: this process can never commit again (another instance took over its identity).
        """
        while not stopping():
            self.cycle()

    def cycle(self) -> None:
        """One round: everything that was decided in it happens, or nothing."""
        self._read_definitions()
        batch = self._poll()
        for change in batch.changes:
            self._take_change(change)
        self._clock.compare(batch.records)
        cycle = Cycle(now_ms=self._clock())
        for record in batch.records:
            self._take_record(cycle, record)
        self._fire_timers(cycle)
        self._commit(cycle)
        self._retry_blocked()
        self._compare_clocks()
        self._move_on()
        self._last_cycle_ms = self._clock.host()

    def health(self) -> Health:
        """Where this instance stands; safe to call from another thread."""
        memory, blocked = dict(self._memory), dict(self._blocked)
        return Health(
            owned=len(memory),
            restoring=tuple(f"{p.topic}[{p.partition}]" for p, m in memory.items() if not m.restored),
            blocked={f"{p.topic}[{p.partition}]": b.reason for p, b in blocked.items()},
            unavailable=self._unavailable,
            last_cycle_ms=self._last_cycle_ms,
            clock_skew_ms=self._clock.skew_ms,
        )

    def _poll(self) -> Batch:
        """What the log gives; nothing while Kafka refuses: rights may come back, a coordinator may recover."""
        now_ms = self._clock.host()
        if self._unavailable is not None and abs(now_ms - self._unavailable_ms) > UNAVAILABLE_FOR_MS:
            _log.info("Kafka serves this instance again")
            self._unavailable = None
        try:
            return self._log.poll(self._wait_s())
        except LogUnavailableError as error:
            if error.fatal:
                raise
            if str(error) != self._unavailable:
                _log.error("Kafka does not serve this instance; it goes on trying", reason=str(error))
            self._unavailable, self._unavailable_ms = str(error), now_ms
            return Batch(changes=(), records=())

    def _commit(self, cycle: Cycle) -> None:
        if not cycle.offsets:
            return
        outcome = self._log.commit(cycle.work())
        match outcome:
            case Committed():
                self._keep(cycle)
            case Aborted():
                self._discard(cycle, outcome)
            case Unknown():
                _log.warning(
                    "the outcome of a commit is unknown: restoring every owned partition", reason=outcome.reason
                )
                for partition in self._memory:
                    self._restore(partition)
            case _:
                assert_never(outcome)

    def _keep(self, cycle: Cycle) -> None:
        if self._refused:
            for origin in cycle.decided():
                self._refused.pop(origin, None)
        for partition, states in cycle.staged.items():
            apply = self._memory[partition].apply
            for key, staged in states.items():
                apply(key, staged.entry)
        for partition, offset in cycle.offsets.items():
            self._memory[partition].next_offset = offset
            self._trying.pop(partition, None)
        for partition, clock_ms in cycle.clocks.items():
            self._memory[partition].clock_ms = clock_ms
        self._decider.keep(cycle)

    def _discard(self, cycle: Cycle, aborted: Aborted) -> None:
        _log.warning("a cycle was aborted; its records are decided again", reason=aborted.reason)
        if aborted.culprit is not None:
            origin, target, address = cycle.blame(aborted.culprit)
            refusal = Refusal(target=target, address=address, reason=aborted.reason)
            self._refused[origin] = (*self._refused.get(origin, ()), refusal)

    def _read_definitions(self) -> None:
        """Learn of new definitions now and then: triggers and starts ask again before they are decided."""
        now_ms = self._clock()
        if 0 < self._read_definitions_at_ms - now_ms <= READ_DEFINITIONS_EVERY_MS:
            return
        try:
            self._catalog.refresh()
        except PartitionBlockedError as error:
            _log.warning("the definitions cannot be read; trying again", reason=str(error))
        self._read_definitions_at_ms = self._clock() + READ_DEFINITIONS_EVERY_MS  # however long that took
        wanted = self._catalog.trigger_topics() | {self._inbox}
        if wanted != self._subscribed:
            self._log.subscribe(wanted)
            self._subscribed = wanted

    def _take_change(self, change: Change) -> None:
        partition = change.partition
        log = _log.bind(topic=partition.topic, partition=partition.partition)
        match change:
            case Assigned():
                log.info("partition assigned")
                self._restore(partition)
            case Revoked():
                log.info("partition revoked")
                self._memory.pop(partition, None)
                self._blocked.pop(partition, None)
                self._trying.pop(partition, None)
                self._refused.clear()
            case StateRead():
                if (memory := self._memory.get(partition)) is not None:
                    memory.read(change.records)
            case Restored():
                if (memory := self._memory.get(partition)) is not None:
                    memory.finish_restore(change.next_offset)
                    if (blocked := self._blocked.get(partition)) is not None and blocked.retry_at_ms is None:
                        self._trying[partition] = self._blocked.pop(partition).times
                    log.info("partition restored", states=len(memory.entries), next_offset=change.next_offset)
            case OffsetLost():
                self._offset_lost(change)
            case _:
                assert_never(change)

    def _restore(self, partition: TopicPartition) -> None:
        self._memory[partition] = PartitionMemory()
        self._blocked.pop(partition, None)
        self._refused.clear()  # what is refused is found again; kept for longer, it could meet another event
        self._log.restore(partition, self._first_offset(partition))

    def _first_offset(self, partition: TopicPartition) -> int | None:
        return None if partition.topic == self._inbox else self._catalog.first_trigger_offset(partition)

    def _offset_lost(self, lost: OffsetLost) -> None:
        reason = (
            f"records were lost: the committed offset is {lost.committed}, the log starts at {lost.log_start}; "
            "find out why, then set the group's offset by hand and restart"
        )
        if lost.partition in self._memory:
            self._block(lost.partition, reason, transient=False)

    def _take_record(self, cycle: Cycle, record: Record) -> None:
        partition = TopicPartition(record.topic, record.partition)
        memory = self._memory.get(partition)
        if memory is None or not memory.restored or partition in self._blocked:
            return
        clock_ms = max(cycle.clocks.get(partition, memory.clock_ms), record.timestamp_ms)
        origin = record.topic, record.partition, record.offset
        refused = self._refused.get(origin, ())
        try:
            self._decider.take(
                cycle, partition, memory, record, Now(decision_ms=cycle.now_ms, partition_ms=clock_ms), refused
            )
        except PartitionBlockedError as error:
            self._refused.pop(origin, None)
            self._block(partition, str(error), transient=error.transient)
            return
        self._trying.pop(partition, None)  # it got on: what stops it next is another cause
        cycle.offsets[partition] = record.offset + 1
        cycle.clocks[partition] = clock_ms

    def _fire_timers(self, cycle: Cycle) -> None:
        """Fire what is due in partition time: the append time of what was read, or the wall clock once all was read."""
        left = TIMERS_PER_CYCLE
        for partition, partition_ms in self._due(cycle).items():
            memory = self._memory[partition]
            for key in memory.due(min(partition_ms, cycle.now_ms), left):
                left -= 1
                if not self._fire(cycle, partition, memory, key, partition_ms):
                    break

    def _due(self, cycle: Cycle) -> dict[TopicPartition, int]:
        """The partitions that have a timer due by the wall clock, and the time that each has reached."""
        times: dict[TopicPartition, int] = {}
        behind: list[TopicPartition] = []
        for partition, memory in self._memory.items():
            due_ms = memory.earliest_due_ms() if memory.restored and partition not in self._blocked else None
            if due_ms is None or due_ms > cycle.now_ms:
                continue
            times[partition] = cycle.clocks.get(partition, memory.clock_ms)
            if times[partition] < due_ms:
                behind.append(partition)
        if behind:
            for partition in self._reached_end(behind):
                if self._clock.usable:
                    times[partition] = max(times[partition], cycle.now_ms)
        return times

    def _reached_end(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The partitions of which everything was read; what comes after it tells how far the host's clock is off."""
        at_ms = self._clock.host()
        reached = self._log.reached_end(partitions)
        self._clock.reached(reached, at_ms)
        return reached

    def _compare_clocks(self) -> None:
        now_ms = self._clock.host()
        if abs(now_ms - self._clocks_compared_ms) < COMPARE_CLOCKS_EVERY_MS:
            return
        if running := [one for one in self._running() if one.topic == self._inbox]:
            self._clocks_compared_ms = now_ms
            self._reached_end(running)

    def _move_on(self) -> None:
        """Commit how far partitions were read beyond their last record, where the marks that end transactions lie.

        Retention deletes these in time with the rest, and then they would look like records that were lost.
        """
        now_ms = self._clock.host()
        if abs(now_ms - self._moved_on_ms) < MOVE_ON_EVERY_MS:
            return
        self._moved_on_ms = now_ms
        cycle = Cycle(now_ms=self._clock())
        for partition, end in self._reached_end(self._running()).items():
            if end > (self._memory[partition].next_offset or 0):
                cycle.offsets[partition] = end
        self._commit(cycle)

    def _running(self) -> list[TopicPartition]:
        return [one for one, memory in self._memory.items() if memory.restored and one not in self._blocked]

    def _fire(
        self, cycle: Cycle, partition: TopicPartition, memory: PartitionMemory, key: bytes, partition_ms: int
    ) -> bool:
        """Decide one timer; False if that blocks the partition."""
        assert memory.next_offset is not None
        now = Now(decision_ms=cycle.now_ms, partition_ms=partition_ms)
        try:
            self._decider.fire(cycle, partition, memory, key, now, self._refused.get(key, ()))
        except PartitionBlockedError as error:
            self._refused.pop(key, None)
            self._block(partition, str(error), transient=error.transient)
            return False
        cycle.offsets.setdefault(partition, memory.next_offset)
        return True

    def _block(self, partition: TopicPartition, reason: str, *, transient: bool) -> None:
        """Let a partition stand still: its records are passed over until it is read again from its committed offset."""
        known = self._blocked.get(partition)
        times = (self._trying.pop(partition, 0) if known is None else known.times) + 1
        wait_ms = min(_BLOCKED_WAIT_MS << min(times - 1, 16), _BLOCKED_WAIT_MAX_MS)
        self._blocked[partition] = Blocked(reason, times, self._clock() + wait_ms)
        report = _log.warning if transient else _log.error
        report("partition stands still", topic=partition.topic, partition=partition.partition, reason=reason)

    def _retry_blocked(self) -> None:
        now_ms = self._clock()
        for partition, blocked in self._blocked.items():
            if blocked.retry_at_ms is None or 0 < blocked.retry_at_ms - now_ms <= _BLOCKED_WAIT_MAX_MS:
                continue
            blocked.retry_at_ms = None
            complete = self._memory[partition].complete
            if complete:
                self._memory[partition].next_offset = None
            else:
                self._memory[partition] = PartitionMemory()
            self._log.restore(partition, self._first_offset(partition), state=not complete)

    def _wait_s(self) -> float:
        now_ms = self._clock()
        dues = [m.earliest_due_ms() for p, m in self._memory.items() if m.restored and p not in self._blocked]
        nearest = min((due for due in dues if due is not None), default=None)
        if nearest is None:
            return IDLE_WAIT_S
        return min(IDLE_WAIT_S, max(nearest - now_ms, _TIMER_WAIT_MS) / 1000)
