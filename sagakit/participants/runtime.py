"""A service that runs: one thread polls, owns the assignment and commits; workers do the rest.

The guarantee of this mode: every command is handled at least once and answered at least once. An offset is committed
only when the answer's delivery report is good and everything before it is finished. What makes an effect happen once
is the handler's own use of `ctx.idempotency_key`.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sagakit.failpoints import failpoint
from sagakit.participants.answers import Replacements, Sender
from sagakit.participants.desk import Desk, Job
from sagakit.participants.service import Service
from sagakit.participants.workers import Exchange, Workers
from sagakit.participants.worklist import Worklist
from sagakit.ports.log import Record, TopicPartition
from sagakit.ports.messages import AssignmentListener, Messages, MessagesUnavailableError
from sagakit.ports.registry import RegistryUnavailableError

_logger: Final = logging.getLogger(__name__)

_IDLE_POLL_S: Final = 0.1
_BUSY_POLL_S: Final = 0.01
_CANCEL_GRACE_S: Final = 0.5
_STOP_THREADS_S: Final = 1.0
_PASS_S: Final = 60.0
"""How often offsets are moved past what is no record, well within any topic's retention."""
_UNAVAILABLE_FOR_S: Final = 10.0
"""How long Kafka counts as unavailable: the client, which tries again and again, says so every few seconds."""


class HandlersStuckError(Exception):
    """Handlers did not end within the deadline of a handover or shutdown, and cannot be stopped.

    The process must end at once (`os._exit`), before its partitions are another's: a handler that runs on beside its
    successor could take effect after its command was undone. The records are not committed, and are delivered again.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How a service runs.

    `threads` is how many sync handlers run at once. Of `in_work_max` records that are taken in and not finished, at
    most about `in_work_max_per_partition` come from one partition; it is paused beyond that. `handover_s` is how long a
    rebalance, and `shutdown_s` how long a shutdown, waits for running handlers; a handover must end before the group's
    session timeout (6 s). An event handler that fails is tried again after each of `event_retry_delays_s`, then the
    event is dead-lettered.
    """

    threads: int = 8
    in_work_max: int = 2_000
    in_work_max_per_partition: int = 500
    commit_interval_s: float = 0.1
    handover_s: float = 4.0
    shutdown_s: float = 10.0
    event_retry_delays_s: tuple[float, ...] = (0.1, 0.5, 2.0)

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: a number is out of its range.
        """
        for name in ("threads", "in_work_max", "in_work_max_per_partition"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("commit_interval_s", "handover_s", "shutdown_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")


class Answering(Exchange, Replacements, Protocol):
    """All that is between records and handlers; `prepare_schemas` is called once, before the first record.

    `prepare_schemas` raises `RegistryUnavailableError` when it should be tried again, and anything else for good.
    """

    def prepare_schemas(self) -> None:
        """Look up every schema that answers are written with."""
        ...


class ServiceRuntime:
    """Runs one service until `stop`, in the main thread or (several in a process) each in a thread of its own."""

    def __init__(
        self,
        service: Service,
        *,
        answering: Answering,
        connect: Callable[[AssignmentListener], Messages],
        settings: RuntimeSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_stuck: Callable[[HandlersStuckError], None] | None = None,
    ) -> None:
        """Nothing happens before `run`. `connect` opens the messages with this runtime as their listener.

        `on_stuck` is to end the process, and not to return. It is called where handlers are found stuck: inside the
        client's call-back, before any partition can leave. Without it `run` raises, when they may have left already.
        """
        self._service = service
        self._answering = answering
        self._connect = connect
        self._settings = settings or RuntimeSettings()
        self._clock = clock
        self._on_stuck = on_stuck
        self._stopping = threading.Event()
        self._crash: BaseException | None = None
        self._messages: Messages | None = None
        self._workers: Workers | None = None
        self._sender: Sender | None = None
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._standing_still: frozenset[TopicPartition] = frozenset()
        self._unavailable: str | None = None
        self._unavailable_at = 0.0
        worklist: Worklist[Record] = Worklist(
            limit=self._settings.in_work_max, partition_limit=self._settings.in_work_max_per_partition
        )
        self._desk = Desk(worklist, clock)

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """The partitions whose records come here now."""
        return self._assigned

    @property
    def standing_still(self) -> frozenset[TopicPartition]:
        """The partitions that an operator must look at, because records were deleted before they were handled."""
        return self._standing_still

    @property
    def unavailable(self) -> str | None:
        """Why Kafka lately refused to serve; None if it does not."""
        return self._unavailable

    def stop(self) -> None:
        """End in order: what runs is finished, what waits is left for the next owner. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Handle records until `stop`.

        Raises:
            HandlersStuckError: end the process at once.
            MessagesUnavailableError: fatal, the Kafka client can go on no more.
            UnknownSchemaError: a schema that is needed is not registered.
        """
        self._wait_for_registry()
        if self._stopping.is_set():
            return
        messages = self._messages = self._connect(self)
        self._sender = Sender(
            messages=messages,
            replacements=self._answering,
            desk=self._desk,
            clock=self._clock,
            delivered=self._delivered,
        )
        self._workers = Workers(
            service=self._service,
            exchange=self._answering,
            desk=self._desk,
            sender=self._sender,
            threads=self._settings.threads,
            event_retry_delays_s=self._settings.event_retry_delays_s,
            crashed=self._crashed,
        )
        self._workers.start()
        try:
            self._poll_until_stopped(messages, self._workers, self._sender)
            self._desk.passed(messages.positions())
            self._hand_over(self._assigned, self._settings.shutdown_s, commit=True)
        except HandlersStuckError:
            raise  # at once, and without leaving the group: no partition must be another's while a handler runs
        except BaseException:
            self._close(messages, self._workers)
            raise
        self._close(messages, self._workers)

    def _close(self, messages: Messages, workers: Workers) -> None:
        try:
            messages.close()
        finally:
            workers.stop(_STOP_THREADS_S)

    def _poll_until_stopped(self, messages: Messages, workers: Workers, sender: Sender) -> None:
        next_commit = self._clock()
        next_pass = next_commit + _PASS_S
        while not self._stopping.is_set():
            room, to_pause, awaits_delivery = self._desk.intake()
            messages.pause(to_pause)
            busy = awaits_delivery or room == 0
            for job in self._desk.admit(self._poll(messages, _BUSY_POLL_S if busy else _IDLE_POLL_S, room)):
                workers.submit(job)
            sender.send_due()
            if self._clock() >= next_pass:
                self._desk.passed(messages.positions())
                next_pass = self._clock() + _PASS_S
            if self._clock() >= next_commit:
                if (offsets := self._desk.take_commits()) and not messages.commit(offsets, wait=False):
                    self._desk.commit_failed(offsets)
                next_commit = self._clock() + self._settings.commit_interval_s
            if self._crash is not None:
                raise self._crash

    def _poll(self, messages: Messages, timeout_s: float, room: int) -> Sequence[Record]:
        """What has come; nothing while Kafka refuses: rights may come back."""
        now = self._clock()
        if self._unavailable is not None and now - self._unavailable_at > _UNAVAILABLE_FOR_S:
            _logger.info("%s is served by Kafka again", self._service.name)
            self._unavailable = None
        try:
            return messages.poll(timeout_s, room)
        except MessagesUnavailableError as error:
            if error.fatal:
                raise
            if str(error) != self._unavailable:
                _logger.error("%s is not served by Kafka, and goes on trying: %s", self._service.name, error)
            self._unavailable, self._unavailable_at = str(error), now
            return ()

    def _wait_for_registry(self) -> None:
        pause_s = 0.5
        while not self._stopping.is_set():
            try:
                return self._answering.prepare_schemas()
            except RegistryUnavailableError as error:
                _logger.warning("%s waits for the registry: %s", self._service.name, error)
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, 10.0)

    # What the messages tell, on the polling thread, inside `poll`, `flush` and `close`.

    def on_assigned(self, offsets: Mapping[TopicPartition, int], begun_below: Mapping[TopicPartition, int]) -> None:
        """See `AssignmentListener.on_assigned`."""
        self._desk.assign(offsets, begun_below)
        self._assigned |= offsets.keys()
        self._standing_still -= offsets.keys()
        _logger.info("%s handles %s", self._service.name, _text(offsets))

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """See `AssignmentListener.on_revoked`."""
        self._hand_over(frozenset(partitions), self._settings.handover_s, commit=True)

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """See `AssignmentListener.on_lost`."""
        _logger.warning(
            "%s has lost %s: the group did not hear from it in time. Their new owner does again what it did since",
            self._service.name,
            _text(partitions),
        )
        self._hand_over(frozenset(partitions), self._settings.handover_s, commit=False)

    def on_offset_lost(self, partition: TopicPartition, committed: int | None, log_start: int | None) -> None:
        """See `AssignmentListener.on_offset_lost`."""
        self._desk.drop([partition])
        self._assigned -= {partition}
        self._standing_still |= {partition}
        _logger.error(
            "%s: %s[%s] stands still: the group's offset is %s and the log begins at %s, so records were deleted "
            "before they were handled. Decide where to go on, set the group's offset there (kafka-consumer-groups "
            "--reset-offsets) while the service is stopped, and start it again",
            self._service.name,
            *partition,
            "gone" if committed is None else committed,
            "unknown" if log_start is None else log_start,
        )

    def on_commit_failed(self, partitions: Collection[TopicPartition]) -> None:
        """See `AssignmentListener.on_commit_failed`."""
        self._desk.commit_failed(partitions)

    def _hand_over(self, partitions: frozenset[TopicPartition], deadline_s: float, *, commit: bool) -> None:
        """Finish what runs for `partitions`, commit it, and forget them.

        Raises:
            HandlersStuckError: a handler did not end in time, also not by cancelling it.
        """
        partitions &= self._assigned
        if not partitions:
            return
        assert self._workers is not None
        assert self._messages is not None
        deadline = self._clock() + deadline_s
        self._desk.withdraw(partitions)
        self._workers.stop_resting()
        running = self._desk.wait_for_handlers(partitions, deadline)
        if running:
            self._workers.cancel(running)
            running = self._desk.wait_for_handlers(partitions, self._clock() + _CANCEL_GRACE_S)
        if commit:
            if self._desk.undelivered(partitions):
                self._messages.flush(max(_CANCEL_GRACE_S, deadline - self._clock()))
            offsets, begun_below = self._desk.take_handover(partitions)
            if not self._messages.commit(offsets, wait=True, begun_below=begun_below):
                self._desk.commit_failed(offsets)
        if running:
            stuck = ", ".join(f"{one.partition.topic}[{one.partition.partition}]@{one.offset}" for one in running[:5])
            error = HandlersStuckError(
                f"{self._service.name}: {len(running)} handlers did not end within {deadline_s} s (records {stuck}). "
                "The process must end, and their records are delivered again. Give handlers time limits of their own, "
                "shorter than that, or the service a longer deadline"
            )
            if self._on_stuck is not None:
                self._on_stuck(error)
            raise error
        self._desk.drop(partitions)
        self._assigned -= partitions

    def _delivered(self, job: Job) -> None:
        failpoint("participant.after-reply", f"{job.partition.topic}[{job.partition.partition}]@{job.offset}")
        self._desk.finished(job)

    def _crashed(self, error: BaseException) -> None:
        self._crash = error


def _text(partitions: Collection[TopicPartition]) -> str:
    return ", ".join(f"{topic}[{number}]" for topic, number in sorted(partitions))
