"""A host whose clock is wrong: what proves it, what does not, and that timers then go by the brokers' time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from sagakit.orchestrator import clock
from sagakit.orchestrator.clock import BrokerClock
from sagakit.ports.log import Record, TopicPartition
from tests.unit.orchestrator.bench import Bench

INBOX = TopicPartition("inbox", 0)
HOUR_MS = 3_600_000


@dataclass
class Time:
    """The brokers' time, and a host that is `ahead_ms` of it."""

    now_ms: int = 1_760_000_000_000
    ahead_ms: int = 0

    def host(self) -> int:
        return self.now_ms + self.ahead_ms


class Read:
    """A partition whose records a clock is compared with, as fast as they come."""

    def __init__(self, ahead_ms: int = 0) -> None:
        self.time = Time(ahead_ms=ahead_ms)
        self.clock = BrokerClock(self.time.host, "inbox")
        self.offset = 0

    def end(self) -> None:
        """Everything was read."""
        self.clock.reached({INBOX: self.offset}, self.time.host())

    def record(self, *, age_ms: int = 0, topic: str = "inbox") -> None:
        """A record is read that was appended `age_ms` ago."""
        self.clock.compare([Record(topic, 0, self.offset, self.time.now_ms - age_ms, b"k", b"v", ())])
        self.offset += 1

    def after(self, milliseconds: int) -> None:
        self.time.now_ms += milliseconds

    @property
    def off_ms(self) -> int:
        """How far the time to go by is off the brokers'."""
        return self.clock() - self.time.now_ms


# What proves that a clock is wrong -----------------------------------------------------------------------------------


def test_a_host_that_is_ahead_is_found_by_a_record_that_came_after_the_end_was_reached() -> None:
    read = Read(ahead_ms=60_000)
    read.end()
    read.after(20)
    read.record(age_ms=5)
    assert 0 <= read.off_ms <= 20
    assert 60_000 - 20 <= read.clock.skew_ms <= 60_000


def test_a_host_that_is_behind_is_found_by_any_record() -> None:
    read = Read(ahead_ms=-60_000)
    read.record(age_ms=5)
    assert abs(read.off_ms) <= 5


@pytest.mark.parametrize("ahead_ms", [1_900, -1_900])
def test_a_small_difference_is_left_alone(ahead_ms: int) -> None:
    read = Read(ahead_ms)
    read.end()
    read.record()
    assert read.clock() == read.time.host()
    assert read.clock.skew_ms == ahead_ms


def test_what_waited_in_the_log_proves_nothing() -> None:
    """After an outage, and after an abort, when records come again."""
    read = Read()
    read.record(age_ms=HOUR_MS)
    read.end()
    read.offset -= 1
    read.record(age_ms=HOUR_MS)
    assert read.clock.skew_ms == 0


def test_a_record_that_may_have_waited_since_the_end_was_reached_proves_nothing() -> None:
    read = Read()
    read.end()
    read.after(HOUR_MS)
    read.record(age_ms=HOUR_MS - 1)
    assert read.clock.skew_ms == 0


def test_records_of_other_topics_prove_nothing() -> None:
    """Their times may be their producers'."""
    read = Read()
    read.end()
    read.record(age_ms=-HOUR_MS, topic="orders.events")
    assert read.clock.skew_ms == 0


def test_a_clock_that_is_set_right_is_believed_again() -> None:
    for ahead_ms in (60_000, -60_000):
        read = Read(ahead_ms)
        read.end()
        read.record()
        read.time.ahead_ms = 0
        read.after(10)
        read.end()
        read.record()
        assert read.clock() == read.time.now_ms


def test_timers_wait_for_a_comparison_and_not_for_ever() -> None:
    def usable(read: Read) -> bool:
        return read.clock.usable

    silent, busy = Read(), Read()
    assert not usable(silent)
    for read in (silent, busy):
        read.end()
        assert not usable(read)
    silent.after(1_000)
    assert usable(silent)
    busy.record()
    assert usable(busy)


def test_it_is_told_once_a_change() -> None:
    read = Read(ahead_ms=60_000)
    with capture_logs() as lines:
        for _ in range(3):
            read.end()
            read.record()
        read.time.ahead_ms = 0
        read.after(120_000)
        for _ in range(3):
            read.end()
            read.record()
    assert [line["log_level"] for line in lines] == ["warning", "info"]
    assert [line["skew_ms"] for line in lines] == [60_000, 0]
    assert "NTP" in lines[0]["event"]


def test_brokers_that_disagree_do_not_fill_the_log() -> None:
    read = Read()
    with capture_logs() as lines:
        for number in range(100):
            read.end()
            read.record(age_ms=-10_000 * (number % 2))
    assert len(lines) == 1


# An orchestrator on such a host --------------------------------------------------------------------------------------


@pytest.fixture(params=["guarded", "unguarded"])
def guarded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Each story is also told without the guard, where it has to end badly: else it would prove nothing."""
    if request.param == "unguarded":
        monkeypatch.setattr(clock, "SKEW_MAX_MS", 10**15)
        monkeypatch.setattr(clock, "_UNCOMPARED_MS", 0)
    return str(request.param) == "guarded"


def one_after_the_other(bench: Bench, ahead_ms: int) -> str:
    """A saga begins on a host whose clock is right, and goes over to another while the shop is busy."""
    saga_id = bench.start("o-1", "visit")
    bench.cycles()
    bench.skew_ms = ahead_ms
    bench.open()
    bench.cycles()
    bench.start("o-2", "visit")
    bench.cycles()
    return saga_id


def test_a_new_owner_whose_clock_is_ahead_times_nothing_out_too_early(bench: Bench, guarded: bool) -> None:
    """Rule 14: a reply in the log beats its timeout."""
    saga_id = one_after_the_other(bench, 60_000)
    for command in bench.commands():
        bench.reply(command)
    bench.cycles()
    assert ("StepTimedOut" not in bench.kinds(saga_id)) == guarded
    if guarded:
        assert "StepSucceeded" in bench.kinds(saga_id)
        assert bench.orchestrator.health().clock_skew_ms == pytest.approx(60_000, abs=200)
        assert bench.orchestrator.health().ready


def test_a_new_owner_whose_clock_is_behind_times_out_in_time(bench: Bench, guarded: bool) -> None:
    saga_id = one_after_the_other(bench, -60_000)
    for _ in range(15):
        bench.cluster.pass_time(200)
        bench.cycles(1)
    assert ("StepTimedOut" in bench.kinds(saga_id)) == guarded


def test_what_a_host_whose_clock_is_wrong_decides_is_due_and_expires_by_the_brokers_time(
    bench: Bench, guarded: bool
) -> None:
    one_after_the_other(bench, 60_000)
    bench.commands()
    bench.start("o-3", "visit")
    bench.cycles()
    (command,) = bench.commands()
    in_time = abs(command.headers.expires_at_ms - bench.clock() - 2_000) < 500
    assert in_time == guarded
