"""What becomes of a record: a reply, a dead letter or nothing; and how that gets to the brokers."""

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final, Protocol

from sagakit.participants.desk import Desk, Job
from sagakit.ports.log import Outgoing
from sagakit.ports.messages import DeliveryFailure, Messages, Undelivered

_logger: Final = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 30.0


class AnswerKind(Enum):
    """What an answer is, by how it may be replaced when it cannot be delivered."""

    REPLY = "reply"
    SMALL_REPLY = "small reply"
    DEAD_LETTER = "dead letter"
    SHORTENED_DEAD_LETTER = "shortened dead letter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A record that must reach the brokers before the offset of the one that it answers may be committed."""

    kind: AnswerKind
    record: Outgoing


class Replacements(Protocol):
    """What is sent in place of an answer that the brokers will never take."""

    def replacement(self, job: Job, answer: Answer, failure: DeliveryFailure) -> Answer | None:
        """Another answer to the same record that may get through; None if there is none but to try again."""
        ...


class Sender:
    """Sends answers, and sends them again or in another form until the brokers have them."""

    def __init__(
        self,
        *,
        messages: Messages,
        replacements: Replacements,
        desk: Desk,
        clock: Callable[[], float],
        delivered: Callable[[Job], None],
    ) -> None:
        """`clock` gives seconds that never go back; `delivered` is called, on the polling thread, for a safe answer."""
        self._messages = messages
        self._replacements = replacements
        self._desk = desk
        self._clock = clock
        self._delivered = delivered
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Job, Answer, int]] = []

    def send(self, job: Job, answer: Answer, tries: int = 0) -> None:
        """Send an answer. May be called from any thread."""
        failure = self._messages.send(answer.record, partial(self._reported, job, answer, tries))
        if failure is not None:
            self._failed(job, answer, tries, failure)

    def send_due(self) -> None:
        """Send again what has waited long enough. Called by the polling thread."""
        if not self._waiting:
            return
        now = self._clock()
        due = []
        with self._lock:
            while self._waiting and self._waiting[0][0] <= now:
                due.append(heapq.heappop(self._waiting))
        for _, _, job, answer, tries in due:
            if self._desk.wanted(job):
                self.send(job, answer, tries)

    def _reported(self, job: Job, answer: Answer, tries: int, failure: DeliveryFailure | None) -> None:
        if failure is None:
            self._delivered(job)
        else:
            self._failed(job, answer, tries, failure)

    def _failed(self, job: Job, answer: Answer, tries: int, failure: DeliveryFailure) -> None:
        if failure.kind is not Undelivered.LATER:
            replacement = self._replacements.replacement(job, answer, failure)
            if replacement is not None:
                _logger.warning(
                    "the %s to %s[%s]@%s could not be sent to %s (%s); a %s is sent instead",
                    answer.kind.value,
                    *job.partition,
                    job.offset,
                    answer.record.topic,
                    failure.reason,
                    replacement.kind.value,
                )
                self.send(job, replacement)
                return
        pause = min(_FIRST_PAUSE_S * 2**tries, _LONGEST_PAUSE_S)
        _logger.error(
            "the %s to %s[%s]@%s could not be sent to %s: %s. It is tried again in %.1f s; its offset is not committed",
            answer.kind.value,
            *job.partition,
            job.offset,
            answer.record.topic,
            failure.reason,
            pause,
        )
        with self._lock:
            heapq.heappush(self._waiting, (self._clock() + pause, next(self._numbers), job, answer, tries + 1))
