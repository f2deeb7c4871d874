"""What the loop itself must keep to so that a transaction loses nothing and doubles nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sagakit.core.state import Marker
from sagakit.orchestrator.decider import Decider
from sagakit.ports.log import Outgoing, TopicPartition
from sagakit.testing.simulated_log import SimulatedLog
from tests.unit.orchestrator.bench import Bench


def test_nothing_is_polled_between_a_decision_and_its_commit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules 3 and 22: partitions go within a poll alone, and a transaction is open while nothing is decided."""
    calls: list[str] = []

    def watch(owner: type, name: str, letter: str) -> None:
        real = getattr(owner, name)

        def called(*arguments: Any, **named: Any) -> Any:
            calls.append(letter)
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, called)

    watch(SimulatedLog, "poll", "p")
    watch(SimulatedLog, "commit", "c")
    watch(Decider, "take", "d")
    watch(Decider, "fire", "t")
    bench.start("o-1", "visit")
    bench.cycles()
    bench.later(3)  # a step times out
    bench.start("o-2", "visit")
    bench.run_to_end()
    happened = "".join(calls)
    assert {"d", "t"} <= set(happened)
    assert re.fullmatch(r"(?:p(?:[dt]+c)?)+", happened), happened


def test_idle_partitions_are_committed_behind_the_marks_of_transactions(bench: Bench) -> None:
    """Rule 4: else retention deletes the marks in time, and the next owner takes them for records that were lost."""
    bench.place("o-1")
    bench.cycles(3)
    bench.later(61)
    home = TopicPartition(bench.topics.inbox, bench.home(bench.saga("o-1")))
    log = bench.cluster.logs[home]
    last = log.read(0, 1_000)[0][-1].offset
    assert log.end > last + 1, "the start was put there by a transaction, whose mark lies behind it"
    assert bench.committed(home.topic, home.partition) == log.end


def test_what_comes_after_the_end_replaces_no_record_of_the_history(bench: Bench) -> None:
    """Rule 7: compaction must find nothing to take away, also where a saga is unknown by now or runs again."""
    saga_id = bench.start("o-1", "visit")
    bench.cycles()
    (look,) = bench.commands()
    bench.reply(look)
    bench.run_to_end()
    bench.reply(look)  # while the marker stands
    bench.cycles()
    assert isinstance(bench.state(saga_id), Marker)
    bench.later(22)
    assert bench.state(saga_id) is None
    bench.reply(look)  # of a saga that nobody knows any more
    bench.put(Outgoing(bench.topics.inbox, 0, saga_id.encode(), b"no frame", ()))
    bench.signal(saga_id, keep_ms=500)
    bench.signal(saga_id, keep_ms=500)
    bench.cycles()
    bench.later(2)
    bench.start("o-1", "visit")
    bench.run_to_end()

    kinds = bench.kinds(saga_id)
    assert kinds.count("SagaStarted") == kinds.count("SignalExpired") == kinds.count("ReplyIgnored") == 2
    assert len({one.header.run for one in bench.history(saga_id) if one.header.run is not None}) == 2
    log = bench.cluster.logs[TopicPartition(bench.topics.backlog, 0)]
    before = log.read(log.start, log.end)[0]
    log.compact(log.end, bench.clock())
    assert log.read(log.start, log.end)[0] == before
