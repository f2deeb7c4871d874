"""How processes wait for their servers and end."""

import os
import signal
import threading

import pytest

from sagakit.adapters.topics import Difference, TopicsDifferError, TopicsUnavailableError
from sagakit.app.running import Stop, run_with_servers, stopped_by_signals, wait_for_servers
from sagakit.app.settings import Settings
from sagakit.ports.log import LogUnavailableError
from sagakit.ports.registry import RegistryUnavailableError

SETTINGS = Settings()
MISSING = Difference(topic="inbox", setting="topic", wanted="there", found="missing", fatal=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_and_the_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopped_by_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop.wait(10)
    assert signal.getsignal(number) is before


def test_what_is_to_happen_at_a_stop_happens_at_once_if_it_was_asked_for_before() -> None:
    stop, called = Stop(), threading.Event()
    stop.ask()
    stop.then(called.set)
    assert called.is_set()


def test_servers_that_are_away_are_asked_again() -> None:
    answers: list[Exception | None] = [TopicsUnavailableError("no broker"), None]

    def check() -> tuple[Difference, ...]:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return ()

    assert wait_for_servers(SETTINGS, Stop(), check)
    assert answers == []


def test_a_stop_ends_the_waiting() -> None:
    stop = Stop()

    def check() -> tuple[Difference, ...]:
        stop.ask()
        raise TopicsUnavailableError("no broker")

    assert not wait_for_servers(SETTINGS, stop, check)


@pytest.mark.parametrize("error", [TopicsDifferError([MISSING]), LogUnavailableError("fenced", fatal=True)])
def test_what_waiting_cannot_mend_is_not_waited_for(error: Exception) -> None:
    def check() -> tuple[Difference, ...]:
        raise error

    with pytest.raises(type(error)):
        wait_for_servers(SETTINGS, Stop(), check)


def test_a_server_that_goes_away_while_a_process_starts_is_waited_for() -> None:
    runs: list[str] = []

    def run() -> None:
        runs.append("begun")
        if len(runs) == 1:
            raise RegistryUnavailableError("gone")
        if len(runs) == 2:
            raise LogUnavailableError("gone")

    run_with_servers(SETTINGS, Stop(), lambda: (), run)
    assert len(runs) == 3


def test_who_is_refused_for_good_does_not_begin_again() -> None:
    runs: list[str] = []

    def run() -> None:
        runs.append("begun")
        raise LogUnavailableError("two of one name", fatal=True)

    with pytest.raises(LogUnavailableError):
        run_with_servers(SETTINGS, Stop(), lambda: (), run)
    assert len(runs) == 1


def test_who_is_asked_to_stop_does_not_begin_again() -> None:
    stop = Stop()

    def run() -> None:
        stop.ask()
        raise LogUnavailableError("gone")

    run_with_servers(SETTINGS, stop, lambda: (), run)
