"""Processes of a benchmark: started before this process has a client of its own, ready before the clock runs."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

_SPAWN = multiprocessing.get_context("spawn")
_READY_TIMEOUT_S = 300.0

Pids: TypeAlias = Mapping[str, Sequence[int]]
"""The processes of a run by what they are, for what they cost."""


class Site(NamedTuple):
    """The broker that a run goes to, and its process."""

    bootstrap: str
    broker: int


class Bell:
    """What a role is given: it says `ready` once, and works until `stopped`."""

    def __init__(self, ready: Semaphore, stop: Event) -> None:
        self._ready, self._stop = ready, stop
        self.said = False

    def ready(self) -> None:
        """Say, once, that the role consumes."""
        if not self.said:
            self.said = True
            self._ready.release()

    @property
    def stopped(self) -> bool:
        """Whether the role shall end."""
        return self._stop.is_set()


@contextmanager
def running(*roles: tuple[Callable[..., None], tuple[Any, ...]]) -> Iterator[Pids]:
    """Run each role, `(function, arguments)`, in a process of its own; the function's first argument is its `Bell`.

    Gives their process ids by the functions' names.
    """
    stop, ready = _SPAWN.Event(), _SPAWN.Semaphore(0)
    processes: list[SpawnProcess] = []
    pids: dict[str, list[int]] = {}
    for function, arguments in roles:
        process = _SPAWN.Process(target=function, args=(Bell(ready, stop), *arguments), daemon=True)
        process.start()
        processes.append(process)
        assert process.pid is not None
        pids.setdefault(function.__name__, []).append(process.pid)
    try:
        for _ in processes:
            _await(ready, processes)
        yield pids
    finally:
        stop.set()
        for process in processes:
            process.join(15)
            if process.is_alive():
                process.kill()


def _await(ready: Semaphore, processes: list[SpawnProcess]) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not ready.acquire(timeout=0.2):
        dead = [process.exitcode for process in processes if not process.is_alive()]
        if dead or time.monotonic() > deadline:
            why = f"exit codes {dead}" if dead else f"not ready within {_READY_TIMEOUT_S:.0f} s"
            raise RuntimeError(f"a process of the benchmark did not come up: {why}; its error stands above")


def once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a process of its own and give its result: no client is left in this one."""
    with _SPAWN.Pool(1) as pool:
        return pool.apply(function, arguments)


class CpuMeter:
    """What processes have used of the CPU since the meter was made: user and system time, in steps of the kernel's."""

    def __init__(self, pids: Pids) -> None:
        self._pids = pids
        self._before = self._read()

    def seconds(self) -> dict[str, float]:
        """Seconds by what the processes are."""
        return {name: now - self._before[name] for name, now in self._read().items()}

    def _read(self) -> dict[str, float]:
        return {name: sum(map(_cpu_s, pids)) for name, pids in self._pids.items()}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
