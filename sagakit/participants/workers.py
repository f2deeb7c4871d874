"""Where handlers run: sync ones in a bounded pool of threads, async ones on one event loop.

How a record gets there: the polling thread never decodes and never calls a handler, so a slow one cannot keep it from
polling. It puts records into a queue; a worker takes one and does everything with it: decode, call, encode, send.
That is one hand-over a record, whose price under load is taking it from a queue (measured: about 1 us; the threads do
not wake each other while there is work). Records for async handlers are decoded by one thread of their own, so that
sync handlers that fill the pool do not hold them up, then handed to the loop.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Protocol, TypeAlias

from pydantic import BaseModel

from sagakit.contracts.envelope import CommandHeaders
from sagakit.participants.answers import Answer, Sender
from sagakit.participants.context import Context, EventContext
from sagakit.participants.desk import Desk, Job
from sagakit.participants.service import Handler, Kind, Rejected, Service
from sagakit.ports.log import Record
from sagakit.ports.registry import RegistryUnavailableError

_logger: Final = logging.getLogger(__name__)

_REGISTRY_PAUSE_S: Final = 0.5
_LONGEST_REGISTRY_PAUSE_S: Final = 10.0

Outcome: TypeAlias = BaseModel | BaseException | None
"""How a handler ended: with a reply's model, with an exception, or (events) with nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A handler with all that it is called with; `command` is where to reply to, None for events."""

    handler: Handler
    message: BaseModel
    context: Context | EventContext
    command: CommandHeaders | None = None


class Exchange(Protocol):
    """Records to calls, outcomes to answers. All but `likely_handler` may raise `RegistryUnavailableError`."""

    def likely_handler(self, record: Record) -> Handler | None:
        """The handler by the headers alone; None if they do not tell."""
        ...

    def prepare(self, record: Record, *, may_have_begun: bool = False) -> Call | Answer | None:
        """What to call, or what to answer without a call. None: the record is not for this service, and is finished.

        `may_have_begun`: this may be a redelivery of what another process began, so nothing is known of its effect.
        """
        ...

    def answer(self, record: Record, call: Call, outcome: Outcome) -> Answer | None:
        """What to send for an outcome; None if nothing."""
        ...


class Workers:
    """The threads that work on records.

    `crashed` is called with an exception that is none of a handler's: it is a bug of ours, and must end the process.
    """

    def __init__(
        self,
        *,
        service: Service,
        exchange: Exchange,
        desk: Desk,
        sender: Sender,
        threads: int,
        event_retry_delays_s: tuple[float, ...],
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._service = service
        self._exchange = exchange
        self._desk = desk
        self._sender = sender
        self._event_retry_delays_s = event_retry_delays_s
        self._crashed = crashed
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._async_jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        has_async = any(handler.is_async for handler in service.handlers)
        has_sync = not has_async or any(not handler.is_async for handler in service.handlers)
        self._default_jobs = self._jobs if has_sync else self._async_jobs
        self._threads = [
            threading.Thread(
                target=self._serve, args=(self._jobs,), name=f"{service.name}-handler-{number}", daemon=True
            )
            for number in range(threads if has_sync else 0)
        ]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[Job, asyncio.Task[None]] = {}
        self._resting: set[Job] = set()  # async event handlers between two tries: their tasks may be cancelled at once
        if has_async:
            self._loop = asyncio.new_event_loop()
            self._threads += [
                threading.Thread(
                    target=self._serve, args=(self._async_jobs,), name=f"{service.name}-decode", daemon=True
                ),
                threading.Thread(target=self._run_loop, name=f"{service.name}-loop", daemon=True),
            ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Work on a record that may run now."""
        handler = self._exchange.likely_handler(job.item)
        if handler is None:
            self._default_jobs.put(partial(self._work, job))
        elif handler.is_async:
            self._async_jobs.put(partial(self._work, job))
        else:
            self._jobs.put(partial(self._work, job))

    def stop_resting(self) -> None:
        """Wake async event handlers that rest between two tries, if their records are not wanted any more."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel, lambda job: job in self._resting)

    def cancel(self, jobs: list[Job]) -> None:
        """Cancel async handlers of these records. Sync ones cannot be cancelled."""
        if self._loop is not None:
            wanted = set(jobs)
            self._loop.call_soon_threadsafe(self._cancel, wanted.__contains__)

    def stop(self, timeout_s: float) -> None:
        """End the threads, those at once that no handler is in; those that do not end in time end with the process."""
        for _ in self._threads:
            self._jobs.put(None)
            self._async_jobs.put(None)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self, jobs: "SimpleQueue[Callable[[], None] | None]") -> None:
        while (job := jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - not a handler's: told to the owner, which ends the process
                self._crashed(error)
                return

    def _work(self, first: Job) -> None:
        """Work on a record, then on those of the same key that waited behind it."""
        job: Job | None = first
        while job is not None:
            if not self._desk.begin(job):
                return
            prepared = self._patiently(
                job, partial(self._exchange.prepare, job.item, may_have_begun=self._desk.may_have_begun(job))
            )
            if prepared is _GIVEN_UP:
                job = self._desk.given_back(job)
            elif not isinstance(prepared, Call):
                job = self._conclude(job, prepared)
            elif prepared.handler.is_async:
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._start_task, job, prepared)
                return
            else:
                job = self._call(job, prepared)

    def _call(self, job: Job, call: Call) -> Job | None:
        outcome: Outcome
        for attempt, pause_s in enumerate((*self._pauses(call), None), start=1):
            if attempt > 1:
                call = _attempt(call, attempt)
            try:
                outcome = call.handler.call(call.message, call.context)
            except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its outcome, and is answered
                outcome = error
            if pause_s is None or not _may_retry(outcome):
                break
            self._log_retry(call, outcome, pause_s)
            if not self._desk.wait(job, pause_s):
                return self._desk.given_back(job)
        answer = self._patiently(job, partial(self._exchange.answer, job.item, call, outcome))
        return self._desk.given_back(job) if answer is _GIVEN_UP else self._conclude(job, answer)

    def _conclude(self, job: Job, answer: Answer | None) -> Job | None:
        # `handled` before `send`: the delivery report may come, on the polling thread, before `send` returns.
        following = self._desk.handled(job)
        if answer is None:
            self._desk.finished(job)
        else:
            self._sender.send(job, answer)
        return following

    def _patiently(self, job: Job, ask: Callable[[], Any]) -> Any:
        """Ask until the registry answers; `_GIVEN_UP` when the record is not wanted any more."""
        pause_s = _REGISTRY_PAUSE_S
        while True:
            try:
                return ask()
            except RegistryUnavailableError as error:
                _logger.warning(
                    "%s waits with %s[%s]@%s for the registry: %s",
                    self._service.name,
                    *job.partition,
                    job.offset,
                    error,
                )
            if not self._desk.wait(job, pause_s):
                return _GIVEN_UP
            pause_s = min(2 * pause_s, _LONGEST_REGISTRY_PAUSE_S)

    def _pauses(self, call: Call) -> tuple[float, ...]:
        """Commands are retried by the saga; events here, in place."""
        return self._event_retry_delays_s if call.handler.kind is Kind.EVENT else ()

    def _log_retry(self, call: Call, outcome: Outcome, pause_s: float) -> None:
        call.context.logger.warning("the event handler failed and is tried again", error=repr(outcome), in_s=pause_s)

    # Async handlers: everything below runs on the loop's thread.

    def _run_loop(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        except BaseException as error:  # noqa: BLE001 - see `_serve`
            self._crashed(error)
        finally:
            self._loop.close()

    def _start_task(self, job: Job, call: Call) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._call_async(job, call))
        self._tasks[job] = task
        task.add_done_callback(partial(self._task_done, job))

    def _task_done(self, job: Job, task: asyncio.Task[None]) -> None:
        del self._tasks[job]
        if task.cancelled():  # before its first step, or while resting
            self._submit_following(self._desk.given_back(job))
        elif (error := task.exception()) is not None:
            self._crashed(error)

    def _cancel(self, which: Callable[[Job], bool]) -> None:
        for job, task in self._tasks.items():
            if which(job) and not self._desk.wanted(job):
                task.cancel()

    async def _call_async(self, job: Job, call: Call) -> None:
        outcome: Outcome
        for attempt, pause_s in enumerate((*self._pauses(call), None), start=1):
            if attempt > 1:
                call = _attempt(call, attempt)
            try:
                outcome = await call.handler.call(call.message, call.context)
            except asyncio.CancelledError as error:
                if not self._desk.wanted(job):
                    raise  # handover or shutdown: not processed, and never a failure
                outcome = error  # the handler's own doing
            except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its outcome, and is answered
                outcome = error
            if pause_s is None or not _may_retry(outcome):
                break
            self._log_retry(call, outcome, pause_s)
            self._resting.add(job)
            try:
                if self._desk.wanted(job):
                    await asyncio.sleep(pause_s)
            finally:
                self._resting.discard(job)
            if not self._desk.wanted(job):
                raise asyncio.CancelledError
        try:
            answer = self._exchange.answer(job.item, call, outcome)
        except RegistryUnavailableError:  # then a thread waits for it, and not the loop
            self._async_jobs.put(partial(self._answer_patiently, job, call, outcome))
            return
        self._submit_following(self._conclude(job, answer))

    def _answer_patiently(self, job: Job, call: Call, outcome: Outcome) -> None:
        answer = self._patiently(job, partial(self._exchange.answer, job.item, call, outcome))
        following = self._desk.given_back(job) if answer is _GIVEN_UP else self._conclude(job, answer)
        self._submit_following(following)

    def _submit_following(self, following: Job | None) -> None:
        if following is not None:
            self.submit(following)


_GIVEN_UP: Final = object()


def _may_retry(outcome: Outcome) -> bool:
    return isinstance(outcome, BaseException) and not isinstance(outcome, Rejected)


def _attempt(call: Call, attempt: int) -> Call:
    return replace(call, context=replace(call.context, attempt=attempt))
