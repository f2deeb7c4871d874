"""What is held of one partition: entries, timers that may be stale, and restores in parts."""

from __future__ import annotations

from sagakit.contracts import envelope
from sagakit.orchestrator.memory import Entry, PartitionMemory
from sagakit.ports.log import StateRecord


def entry(due_ms: int | None, value: bytes = b"v") -> Entry:
    return Entry(value, due_ms)


def record(key: bytes | None, value: bytes | None, due_ms: int | None = None) -> StateRecord:
    headers = () if due_ms is None else ((envelope.DUE, b"%d" % due_ms),)
    return StateRecord(key, value, headers)


def restored(**entries: int | None) -> PartitionMemory:
    memory = PartitionMemory()
    memory.finish_restore(0)
    for name, due_ms in entries.items():
        memory.apply(name.encode(), entry(due_ms))
    return memory


def test_timers_come_earliest_first_and_stay_until_the_state_changes() -> None:
    memory = restored(c=30, a=10, b=20, never=None)
    assert memory.earliest_due_ms() == 10
    assert list(memory.due(20, 10)) == [b"a", b"b"]
    assert list(memory.due(20, 10)) == [b"a", b"b"], "an aborted cycle finds them again"
    memory.apply(b"a", entry(40))
    assert list(memory.due(100, 10)) == [b"b", b"c", b"a"]


def test_no_more_timers_are_given_than_asked_for() -> None:
    assert list(restored(a=1, b=2, c=3).due(9, 2)) == [b"a", b"b"]


def test_a_stale_timer_fires_nothing() -> None:
    memory = restored(a=10, b=20)
    memory.apply(b"a", entry(None))
    memory.apply(b"b", None)
    assert memory.earliest_due_ms() is None
    assert list(memory.due(100, 10)) == []


def test_a_timer_that_goes_and_comes_back_fires_once() -> None:
    memory = restored(a=10)
    memory.apply(b"a", entry(50))
    memory.apply(b"a", entry(10))
    assert list(memory.due(100, 10)) == [b"a"]


def test_a_key_that_was_removed_and_written_again_has_its_new_timer() -> None:
    memory = restored(a=10)
    memory.apply(b"a", None)
    memory.apply(b"a", entry(70))
    assert memory.earliest_due_ms() == 70


def test_a_restore_takes_the_last_record_of_each_key_over_all_its_parts() -> None:
    memory = PartitionMemory()
    memory.read([record(b"a", b"1", 10), record(b"b", b"1"), record(None, b"nobody's")])
    memory.read([record(b"a", b"2", 30), record(b"b", None), record(b"c", b"1", 20)])
    assert (memory.restored, memory.next_offset) == (False, None)
    memory.finish_restore(7)
    assert (memory.restored, memory.next_offset) == (True, 7)
    assert memory.entries == {b"a": entry(30, b"2"), b"c": entry(20, b"1")}
    assert list(memory.due(100, 10)) == [b"c", b"a"]


def test_delivering_again_keeps_what_was_restored() -> None:
    memory = restored(a=10)
    memory.next_offset = None
    assert (memory.complete, memory.restored) == (True, False)
    memory.finish_restore(3)
    assert list(memory.due(10, 1)) == [b"a"]
