"""The clocks: the host's, in one place so that the simulation can put its own in, and the brokers' as far as known."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import structlog

from sagakit.ports.log import Record, TopicPartition

_log = structlog.get_logger("sagakit.orchestrator")

Clock: TypeAlias = Callable[[], int]
"""Gives the present time in epoch milliseconds."""

SKEW_MAX_MS: Final = 2_000
"""How far the host's clock may be off the brokers' before the orchestrator goes by the brokers' time."""

_UNCOMPARED_MS: Final = 1_000
_TOLD_EVERY_MS: Final = 60_000


def wall_clock_ms() -> int:
    """The system's time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


class BrokerClock:
    """The host's clock; put right, where it is more than `SKEW_MAX_MS` off, by the append times of what is read.

    A record was appended before it was read: that bounds the skew from above. One that was not there when the end of
    its partition was reached was appended after that: that bounds it from below. The estimate, `skew_ms` (positive: the
    host is ahead), moves only as far as these bounds force it, so neither backlogs nor slow polls pass for skew.
    """

    def __init__(self, host: Clock, inbox: str) -> None:
        """`inbox` is the topic whose records the brokers stamp (`message.timestamp.type=LogAppendTime`)."""
        self.host, self._inbox = host, inbox
        self.skew_ms = 0
        self._ends: dict[TopicPartition, tuple[int, int]] = {}
        self._waits_since_ms: int | None = None
        self._compared = False
        self._told, self._told_at_ms = False, 0

    def __call__(self) -> int:
        """The time to go by."""
        return self.host() - (self.skew_ms if abs(self.skew_ms) > SKEW_MAX_MS else 0)

    @property
    def usable(self) -> bool:
        """Whether timers may go by it: it was compared once, or nothing comes by which it could be."""
        since_ms = self._waits_since_ms
        return self._compared or (since_ms is not None and abs(self.host() - since_ms) >= _UNCOMPARED_MS)

    def reached(self, next_offsets: Mapping[TopicPartition, int], at_ms: int) -> None:
        """When the host's clock showed `at_ms`, nothing was in these partitions from these offsets on."""
        self._ends.update({partition: (offset, at_ms) for partition, offset in next_offsets.items()})
        if next_offsets and self._waits_since_ms is None:
            self._waits_since_ms = at_ms

    def compare(self, records: Sequence[Record]) -> None:
        """Learn from what was polled just now: one record is enough."""
        record = next((one for one in reversed(records) if one.topic == self._inbox), None)
        if record is None:
            return
        end_offset, end_ms = self._ends.get(TopicPartition(record.topic, record.partition), (record.offset + 1, 0))
        if record.offset >= end_offset:
            self.skew_ms = max(self.skew_ms, end_ms - record.timestamp_ms)
            self._compared = True
        host_ms = self.host()
        self.skew_ms = min(self.skew_ms, host_ms - record.timestamp_ms)
        off = abs(self.skew_ms) > SKEW_MAX_MS
        if off != self._told and abs(host_ms - self._told_at_ms) >= _TOLD_EVERY_MS:
            self._told, self._told_at_ms = off, host_ms
            advice = "goes by the brokers' time; see to the time service (NTP)" if off else "agrees again"
            (_log.warning if off else _log.info)(f"this host's clock: {advice}", skew_ms=self.skew_ms)
