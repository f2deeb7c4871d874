"""Child processes of tests and of `sagakit dev`: started with a log file, awaited with a deadline, never left behind.

Each child leads a process group of its own, so a Ctrl-C at the terminal reaches only the parent, which then ends its
children in order. A watchdog process (see `sagakit.testing.watchdog`) kills them if the parent dies first.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sagakit.testing import watchdog
from sagakit.testing.errors import ProcessError

# How often a condition outside this process (a port, a line in a file) is looked at. The child's death is an event and
# ends every wait at once.
LOOK_INTERVAL_S = 0.02

# The child stands still until its parent has written it on the watchdog's list: were it started at once, a parent
# killed in between would leave it behind. A parent that dies before the go-ahead closes the pipe, `read` fails, nothing
# runs.
_START_GATE = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")


class _Watchdog:
    """This process's one watchdog, started with the first child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def add(self, group: int) -> None:
        with self._lock:
            self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        with self._lock:
            self._tell(f"-{group}\n")

    def forget(self) -> None:
        """In a forked copy of this process: close our end, or the watchdog would outwait the copy too."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.returncode = 0  # not this copy's child: it must not be waited for here
        self._process = None
        self._lock = threading.Lock()

    def _tell(self, line: str) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                text=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()


_watchdog = _Watchdog()
os.register_at_fork(after_in_child=_watchdog.forget)


class Process:
    """A running child process; make one with `Process.start`.

    As a context manager it is terminated at the end of the block. All waits raise `ProcessError`, with the tail of the
    log, as soon as the child has ended or when `timeout_s` seconds have passed.
    """

    def __init__(self, name: str, command: Sequence[str], child: subprocess.Popen[bytes], log_path: Path) -> None:
        self.name = name
        self.command = tuple(command)
        self.pid = child.pid
        self.log_path = log_path
        self._child = child
        self._log_start = 0
        self._reaped = False
        self._lock = threading.Lock()

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log_directory: Path,
        environment: Mapping[str, str] | None = None,
        working_directory: Path | None = None,
    ) -> Self:
        """Start `command` and return at once.

        Output and errors are appended to `<log_directory>/<name>.log`. `environment` is added to this process's own.
        Raises `ProcessError` if there is no such executable.
        """
        if shutil.which(command[0]) is None:
            raise ProcessError(f"{name} cannot be started: no executable {command[0]!r} on this machine's PATH.")
        log_directory.mkdir(parents=True, exist_ok=True)
        log_path = log_directory / f"{name}.log"
        with log_path.open("ab") as log:
            log_start = log.tell()
            child = subprocess.Popen(
                [*_START_GATE, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=working_directory,
                start_new_session=True,
            )
        process = cls(name, command, child, log_path)
        process._log_start = log_start
        _watchdog.add(process.pid)
        assert child.stdin is not None
        try:
            child.stdin.write(b"go\n")
            child.stdin.close()
        except BrokenPipeError:
            process.wait(timeout_s=5)
            raise ProcessError(f"{name} ended before it began.{process._tail_text()}") from None
        return process

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal as in `subprocess`; None while the child lives (also while stopped)."""
        with self._lock:
            self._reap()
            return self._child.returncode

    @property
    def is_running(self) -> bool:
        """Whether the child lives; a paused one does."""
        return self.exit_code is None

    def wait(self, *, timeout_s: float) -> int:
        """Wait for the child's end and return its exit code."""
        deadline = time.monotonic() + timeout_s
        while (exit_code := self.exit_code) is None:
            if time.monotonic() > deadline:
                raise ProcessError(f"{self._title} has not ended within {timeout_s} s.{self._tail_text()}")
            self._look_again_soon()
        return exit_code

    def wait_until(self, condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
        """Wait until `condition()` is true; `what` names it in the error ("ready", "the port is open")."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if (exit_code := self.exit_code) is not None:
                raise ProcessError(
                    f"{self._title} ended with exit code {exit_code} while it was awaited: {what}.{self._tail_text()}"
                )
            if time.monotonic() > deadline:
                raise ProcessError(f"{self._title}: not {what} within {timeout_s} s.{self._tail_text()}")
            self._look_again_soon()

    def wait_for_line(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        """Wait for a line of output that `pattern` (a regular expression) is found in, and return the match.

        Looks at all output since this child's start, so a line that came before the call is found.
        """
        expression = re.compile(pattern)
        found: list[re.Match[str]] = []

        def search() -> bool:
            found.extend(match for line in self.output().splitlines() if (match := expression.search(line)))
            return bool(found)

        try:
            self.wait_until(search, timeout_s=timeout_s, what=f"seen with a line matching {pattern!r}")
        except ProcessError:
            if not search():  # the line may have been the last that it wrote before it ended
                raise
        return found[0]

    def wait_for_port(self, port: int, *, timeout_s: float) -> None:
        """Wait until something accepts connections on `port` of 127.0.0.1."""

        def accepts() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        self.wait_until(accepts, timeout_s=timeout_s, what=f"listening on port {port}")

    def terminate(self, *, timeout_s: float = 10.0) -> int:
        """Ask the child to end (SIGTERM), kill its group if it has not after `timeout_s`; return the exit code.

        A paused child is resumed first, so that it can answer. Harmless on a child that has ended.
        """
        self._signal_group(signal.SIGCONT)
        with self._lock:
            self._reap()
            if not self._reaped:
                self._child.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout_s=timeout_s)
        except ProcessError:
            return self.kill()

    def interrupt(self) -> None:
        """Send SIGINT, what Ctrl-C sends, to the child alone."""
        with self._lock:
            self._reap()
            if not self._reaped:
                self._child.send_signal(signal.SIGINT)

    def kill(self) -> int:
        """Kill the child's whole group (SIGKILL), paused or not, and return the exit code."""
        self._signal_group(signal.SIGKILL)
        return self.wait(timeout_s=30)

    def pause(self) -> None:
        """Stop the child's group in its tracks (SIGSTOP): it keeps its connections and does nothing."""
        self._signal_group(signal.SIGSTOP)
        # The signal is on its way when the call returns; until it is there the child may still answer.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused child go on (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    def output(self) -> str:
        """All output since this child's start, undecodable bytes replaced."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of this child's output."""
        return "\n".join(self.output().splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()

    @property
    def _title(self) -> str:
        return f"{self.name} (process {self.pid})"

    def _tail_text(self) -> str:
        return f" The end of its log, {self.log_path}:\n{self.log_tail()}"

    def _look_again_soon(self) -> None:
        """Wait for the child's end, but no longer than the interval after which conditions are looked at again."""
        with self._lock:
            if not self._reaped:
                try:
                    self._child.wait(timeout=LOOK_INTERVAL_S)
                except subprocess.TimeoutExpired:
                    return
                self._reap()

    def _reap(self) -> None:
        """Take note of the child's end, once. The lock is held: from here on its number may belong to someone else."""
        if not self._reaped and self._child.poll() is not None:
            self._reaped = True
            _watchdog.remove(self.pid)

    def _signal_group(self, number: signal.Signals) -> None:
        with self._lock:
            self._reap()
            if not self._reaped:
                os.killpg(self.pid, number)
