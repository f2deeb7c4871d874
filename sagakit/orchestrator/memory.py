"""What the orchestrator holds of one inbox partition: its sagas, still encoded, and when each must be looked at again.

State stays encoded because most sagas only wait: restoring is then filling a dictionary, and a waiting saga costs its
key and its bytes. The timers are a heap whose entries are checked against the saga when they come up; an entry that no
longer agrees is dropped then.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sagakit.contracts import envelope
from sagakit.ports.log import Headers, StateRecord


class Entry(NamedTuple):
    """The encoded state of one key of the state topic, and when its earliest timer is due (epoch ms)."""

    value: bytes
    due_ms: int | None


class PartitionMemory:
    """The committed state of one partition. Changed only by a restore and by a committed cycle."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.next_offset: int | None = None
        self.complete = False
        self.clock_ms = 0
        self._timers: list[tuple[int, bytes]] = []

    @property
    def restored(self) -> bool:
        """Whether the partition may decide: its state is `complete`, and records follow from the next offset on."""
        return self.next_offset is not None

    def read(self, records: Iterable[StateRecord]) -> None:
        """Take in a part of the state topic, in log order: the last record of a key counts.

        A state whose header is no time is due at once, and then it cannot be read: else it would never be looked at.
        """
        entries, name = self.entries, envelope.DUE
        new = tuple.__new__  # this line runs for every saga in flight, and nothing is decided until it has
        for key, value, headers in records:
            if key is None:
                continue
            if value is None:
                entries.pop(key, None)
            else:
                try:
                    due_ms = int(headers[0][1] or b"") if headers and headers[0][0] == name else due_of(headers)
                except ValueError:
                    entries[key] = Entry(b"", 0)
                    continue
                entries[key] = new(Entry, (value, due_ms))

    def finish_restore(self, next_offset: int) -> None:
        """The state is complete; records follow from `next_offset` on."""
        self._timers = [(entry.due_ms, key) for key, entry in self.entries.items() if entry.due_ms is not None]
        heapq.heapify(self._timers)
        self.next_offset = next_offset
        self.complete = True

    def apply(self, key: bytes, entry: Entry | None) -> None:
        """Take over a committed change; None is a tombstone."""
        if entry is None:
            self.entries.pop(key, None)
            return
        before = self.entries.get(key)
        self.entries[key] = entry
        if entry.due_ms is not None and (before is None or before.due_ms != entry.due_ms):
            heapq.heappush(self._timers, (entry.due_ms, key))

    def earliest_due_ms(self) -> int | None:
        """When the next timer is due; None without timers."""
        self._drop_stale()
        return self._timers[0][0] if self._timers else None

    def due(self, until_ms: int, most: int) -> Iterator[bytes]:
        """Up to `most` keys whose timer is due at `until_ms`, earliest first.

        They stay in the heap: a committed cycle changes their due time, an aborted one leaves them to be found again.
        """
        taken: list[tuple[int, bytes]] = []
        while len(taken) < most:
            self._drop_stale()
            if not self._timers or self._timers[0][0] > until_ms:
                break
            timer = heapq.heappop(self._timers)
            if not taken or timer != taken[-1]:
                taken.append(timer)
        for timer in taken:
            heapq.heappush(self._timers, timer)
        return iter([key for _, key in taken])

    def _drop_stale(self) -> None:
        timers, entries = self._timers, self.entries
        while timers:
            due_ms, key = timers[0]
            entry = entries.get(key)
            if entry is not None and entry.due_ms == due_ms:
                return
            heapq.heappop(timers)


def due_of(headers: Headers) -> int | None:
    """When the earliest timer of a state record is due, from its header; the value stays closed."""
    for name, value in headers:
        if name == envelope.DUE:
            return int(value or b"")
    return None
