"""How long-running processes begin and end: wait for their servers, stop on a signal, within a deadline."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import structlog

from sagakit.adapters.topics import Difference, TopicsUnavailableError
from sagakit.app.settings import Settings
from sagakit.ports.log import LogUnavailableError
from sagakit.ports.registry import RegistryUnavailableError

_log = structlog.get_logger("sagakit.app")

_FIRST_PAUSE_S: Final = 0.5
_PAUSE_MAX_S: Final = 15.0

STOP_DEADLINE_S: Final = 20.0
"""A shutdown that takes longer is ended: a process that hangs keeps its partitions from the others."""

EXIT_STUCK: Final = 70
"""Exit status of a process that did not end in time (`EX_SOFTWARE` of sysexits.h)."""


class Stop:
    """Whether this process has been asked to end. Safe to ask from any thread."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._calls: list[Callable[[], None]] = []

    def __call__(self) -> bool:
        """Whether to stop now."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask to stop."""
        self._asked.set()
        for call in self._calls:
            call()

    def then(self, call: Callable[[], None]) -> None:
        """Call this as soon as a stop is asked for, at once if it was; it must be safe in a signal handler."""
        self._calls.append(call)
        if self._asked.is_set():
            call()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for a stop; whether one was asked for in time."""
        return self._asked.wait(timeout_s)


@contextmanager
def stopped_by_signals(deadline_s: float = STOP_DEADLINE_S) -> Iterator[Stop]:
    """While the block runs, SIGTERM and SIGINT ask it to stop.

    If it has not ended `deadline_s` after the first signal, or at a second SIGINT, the process ends at once.
    """
    stop, ended = Stop(), threading.Event()

    def watch(name: str) -> None:
        _log.info("shutting down", signal=name)
        if not ended.wait(deadline_s):
            _end_at_once(f"the shutdown took longer than {deadline_s:.0f} s")

    def on_signal(number: int, _: FrameType | None) -> None:
        # Nothing is logged here: the signal may have come in the midst of writing a log line.
        if not stop():
            threading.Thread(target=watch, args=(signal.Signals(number).name,), daemon=True).start()
        elif number == signal.SIGINT:
            os._exit(EXIT_STUCK)
        stop.ask()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_servers(settings: Settings, stop: Stop, check: Callable[[], tuple[Difference, ...]]) -> bool:
    """Wait until `check` finds Kafka and the registry; False if a stop was asked for meanwhile.

    `check` gives the differences that one can live with.

    Raises:
        Exception: what `check` raises, unless it means that a server does not answer.
    """
    pause_s = _FIRST_PAUSE_S
    while not stop():
        try:
            differences = check()
        except (TopicsUnavailableError, LogUnavailableError, RegistryUnavailableError) as error:
            if isinstance(error, LogUnavailableError) and error.fatal:
                raise
            _log.warning(
                "waiting for Kafka and the registry",
                bootstrap=settings.bootstrap,
                registry_url=settings.registry_url,
                reason=str(error),
                next_try_s=pause_s,
            )
            stop.wait(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)
        else:
            for one in differences:
                _log.warning("a topic is not as it should be", difference=str(one))
            return True
    return False


def run_with_servers(
    settings: Settings, stop: Stop, check: Callable[[], tuple[Difference, ...]], run: Callable[[], None]
) -> None:
    """Wait until `check` finds the servers, then `run` to its end; not at all if a stop is asked for meanwhile.

    A server that goes away just as `run` opens its clients is waited for like one that was never there.

    Raises:
        Exception: what `check` and `run` raise, unless it means that a server does not answer.
    """
    while wait_for_servers(settings, stop, check):
        try:
            return run()
        except (TopicsUnavailableError, LogUnavailableError, RegistryUnavailableError) as error:
            if isinstance(error, LogUnavailableError) and error.fatal:
                raise
            _log.warning("a server went away while this process was starting", reason=str(error))
            stop.wait(_FIRST_PAUSE_S)
    return None


def _end_at_once(why: str) -> None:
    _log.critical("the process ends at once", reason=why)
    os._exit(EXIT_STUCK)
