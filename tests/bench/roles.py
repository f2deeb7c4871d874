"""Processes of a benchmark: started before this process has a client of its own, ready before the clock runs."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event, Semaphore
from typing import Any

_SPAWN = multiprocessing.get_context("spawn")
_READY_TIMEOUT_S = 60.0


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
def running(*roles: tuple[Callable[..., None], tuple[Any, ...]]) -> Iterator[None]:
    """Run each role, `(function, arguments)`, in a process of its own; the function's first argument is its `Bell`."""
    stop, ready = _SPAWN.Event(), _SPAWN.Semaphore(0)
    processes: list[SpawnProcess] = []
    for function, arguments in roles:
        process = _SPAWN.Process(target=function, args=(Bell(ready, stop), *arguments), daemon=True)
        process.start()
        processes.append(process)
    try:
        for _ in processes:
            _await(ready, processes)
        yield
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
