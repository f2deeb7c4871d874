"""Calls into a client that may never come back, made in a thread of their own so that the caller does."""

import queue
import threading
from collections.abc import Callable


class CallOverdueError(Exception):
    """A call has not come back in time. It still waits, in a thread that is given up; so is what it was called on."""


class _Worker:
    """One thread, and the call that it makes at the moment."""

    def __init__(self, name: str) -> None:
        self.calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        while True:
            call = self.calls.get()
            try:
                call()
            except BaseException as error:  # noqa: BLE001  # it is the caller's
                self.results.put(error)
            else:
                self.results.put(None)
            del call


class BoundedCalls:
    """Makes calls, one at a time, from one thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._worker: _Worker | None = None

    def call(self, function: Callable[[], object], what: str, overdue_s: float) -> None:
        """Call `function` and wait until it returns, no longer than `overdue_s` seconds; `what` names it in the error.

        Raises:
            CallOverdueError: it did not return in time.
            BaseException: what it raised.
        """
        if self._worker is None:
            self._worker = _Worker(self._name)
        self._worker.calls.put(function)
        try:
            raised = self._worker.results.get(timeout=overdue_s)
        except queue.Empty:
            self._worker = None
            raise CallOverdueError(f"{what} has not come back within {overdue_s} s") from None
        if raised is not None:
            raise raised
