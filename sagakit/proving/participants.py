"""A participant as the engine may meet it: it does what it is told once, loses answers, fails half-way, is late.

It is truthful in exactly what the protocol asks of participants: an effect is deduplicated by its idempotency key, a
compensation leaves a fence that its forward command does not pass, and *rejected* and *expired* mean that this command
had no effect. Everything else it may get wrong.
"""

from dataclasses import dataclass, field
from enum import Enum

from sagakit.core.actions import SendCommand
from sagakit.core.events import Outcome
from sagakit.core.transitions import Direction


class Mood(Enum):
    """What a participant does with the next command, where the protocol leaves it the choice."""

    WORKS = "works"
    REFUSES = "refuses"
    FAILS_BEFORE = "fails before the effect"
    FAILS_AFTER = "fails after the effect"
    SILENT = "works, and its reply is lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a participant replies."""

    outcome: Outcome
    code: str | None = None


@dataclass(slots=True)
class Participant:
    """The effects of every service, by the idempotency key of the forward command."""

    _done_by: dict[str, str] = field(default_factory=dict)
    _fences: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)

    @property
    def standing(self) -> frozenset[str]:
        """The idempotency keys of the effects that were done and not undone."""
        return frozenset(self._done_by.keys() - self._fences)

    def undo_by_hand(self, key: str) -> None:
        """An operator undoes an effect, or makes sure that it never happens."""
        self._fences.add(key)

    def do_by_hand(self, key: str) -> None:
        """An operator brings an effect about."""
        self._done_by.setdefault(key, "by hand")

    def handle(self, command: SendCommand, now_ms: int, mood: Mood) -> Answer | None:
        """Do a command that arrives at `now_ms` (a delivery, or a repeated one); None when no reply gets out."""
        if command.direction is Direction.COMPENSATION:
            return self._undo(command, now_ms, mood)
        done_by = self._done_by.get(command.idempotency_key)
        if done_by == command.command_id:
            return _told(Answer(outcome=Outcome.SUCCEEDED), mood)
        if command.idempotency_key in self._fences:
            return _told(Answer(outcome=Outcome.REJECTED, code="FENCED"), mood)
        if now_ms >= command.expires_at_ms:
            return _told(Answer(outcome=Outcome.EXPIRED), mood)
        if mood is Mood.REFUSES or command.command_id in self._refused:
            self._refused.add(command.command_id)
            return Answer(outcome=Outcome.REJECTED, code="REFUSED")
        if mood is Mood.FAILS_BEFORE:
            return Answer(outcome=Outcome.FAILED, code="Timeout")
        if done_by is None:
            self._done_by[command.idempotency_key] = command.command_id
        return _told(Answer(outcome=Outcome.SUCCEEDED), mood)

    def _undo(self, command: SendCommand, now_ms: int, mood: Mood) -> Answer | None:
        if now_ms >= command.expires_at_ms:
            return _told(Answer(outcome=Outcome.EXPIRED), mood)
        if mood is Mood.REFUSES:
            return Answer(outcome=Outcome.REJECTED, code="REFUSED")
        if mood is Mood.FAILS_BEFORE:
            return Answer(outcome=Outcome.FAILED, code="Timeout")
        if command.undoes is not None:
            self._fences.add(command.undoes)
        return _told(Answer(outcome=Outcome.SUCCEEDED), mood)


def _told(answer: Answer, mood: Mood) -> Answer | None:
    if mood is Mood.SILENT:
        return None
    if mood is Mood.FAILS_AFTER:
        return Answer(outcome=Outcome.FAILED, code="Timeout")
    return answer
