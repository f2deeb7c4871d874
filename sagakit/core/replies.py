"""Replies: found by command id, judged by the table."""

from collections.abc import Iterator
from typing import Final

from sagakit.core import ids, table
from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.definition import Kind, Task
from sagakit.core.events import Outcome, Reply
from sagakit.core.progress import fail, give_up_waiting, park, retry_or_give_up, undo_later_or_park
from sagakit.core.state import Saga, Status, Step, StepStatus
from sagakit.core.table import Rule
from sagakit.core.transitions import Direction, FailureKind
from sagakit.core.turn import Turn
from sagakit.core.values import Data

WRONG_TYPE: Final = "WrongReplyType"
"""The kind of failure of a reply that succeeded with a record that the definition does not name."""


def reply(turn: Turn, event: Reply) -> None:
    """Decide a reply for a live saga."""
    saga = turn.saga
    found = _find(saga, event.command_id)
    if found is None:
        return turn.emit(t.ReplyIgnored, reason=f"no command of this run has the id {event.command_id}")
    address, direction, attempt = found
    task, step = turn.definition.tasks[address], saga.steps[address]
    outcome, code, message = _judged(task, direction, event)
    rule = _rule(step, direction, attempt, outcome)
    if rule is None:
        reason = f"{outcome.value}, but the step is {step.status.value} at attempt {step.attempt}/{step.undo_attempt}"
        return turn.emit(t.ReplyIgnored, address, direction, attempt, reason=reason)
    if direction is Direction.COMPENSATION:
        return _undo_reply(turn, task, attempt, rule, outcome, code, message)
    return _forward_reply(turn, task, attempt, rule, event, outcome, code, message)


def _find(saga: Saga, command_id: str) -> tuple[Address, Direction, int] | None:
    """The step, direction and attempt that a command id stands for."""
    for address, direction, attempt in _sent(saga):
        if ids.command_id(saga.saga_id, saga.run, address, direction.value, attempt) == command_id:
            return address, direction, attempt
    return None


def _sent(saga: Saga) -> Iterator[tuple[Address, Direction, int]]:
    """Every command of the run: first those whose reply is awaited, since nearly every reply is to one of them."""
    in_flight, undoing = StepStatus.IN_FLIGHT, StepStatus.UNDOING
    for address, step in saga.steps.items():
        if step.status is in_flight:
            yield address, Direction.FORWARD, step.attempt
        elif step.status is undoing:
            yield address, Direction.COMPENSATION, step.undo_attempt
    for address, step in saga.steps.items():
        for direction, last in ((Direction.COMPENSATION, step.undo_attempt), (Direction.FORWARD, step.attempt)):
            for attempt in range(last, 0, -1):
                yield address, direction, attempt


def _judged(task: Task, direction: Direction, event: Reply) -> tuple[Outcome, str, str | None]:
    """The outcome that counts: success with the wrong record is a failure that may have happened."""
    command = task.command if direction is Direction.FORWARD else task.compensate
    got = None if event.payload is None else event.payload.type
    wanted = None if command is None else command.reply
    if event.outcome is Outcome.SUCCEEDED and wanted is not None and got != wanted:
        return Outcome.FAILED, WRONG_TYPE, f"the reply is {got}, the definition says {wanted}"
    return event.outcome, event.code or "", event.message


def _rule(step: Step, direction: Direction, attempt: int, outcome: Outcome) -> Rule | None:
    if direction is Direction.COMPENSATION:
        earlier = step.status is StepStatus.UNDOING and attempt < step.undo_attempt
        return (table.COMPENSATION_EARLIER if earlier else table.COMPENSATION).get((step.status, outcome))
    earlier = step.status is StepStatus.IN_FLIGHT and attempt < step.attempt
    rule = (table.FORWARD_EARLIER if earlier else table.FORWARD).get((step.status, outcome))
    duplicate = attempt not in step.unknown and outcome is not Outcome.SUCCEEDED
    return None if duplicate else rule


def _forward_reply(
    turn: Turn,
    task: Task,
    attempt: int,
    rule: Rule,
    event: Reply,
    outcome: Outcome,
    code: str,
    message: str | None,
) -> None:
    address, forward = task.address, Direction.FORWARD
    if rule is Rule.SUCCEED:
        return succeed(turn, task, attempt, turn.definition.data_of(event.payload))
    if outcome is Outcome.REJECTED:
        declared = code in task.rejects
        turn.emit(t.StepRejected, address, forward, attempt, code=code, message=message, declared=declared)
    elif outcome is Outcome.EXPIRED:
        turn.emit(t.StepExpired, address, forward, attempt)
    else:
        turn.emit(t.StepFailed, address, forward, attempt, kind=code, message=message)
    if rule is Rule.REJECT:
        fail(turn, task, FailureKind.REJECTED, code, message)
    elif rule is Rule.RETRY:
        kind = FailureKind.EXPIRED if outcome is Outcome.EXPIRED else FailureKind.FAILED
        retry_or_give_up(turn, task, kind, code or None, message)
    elif turn.saga.status is Status.COMPENSATING:
        give_up_waiting(turn)
    return None


def succeed(turn: Turn, task: Task, attempt: int | None, data: Data) -> None:
    """A step took effect: keep what expressions read of its reply. A pivot's success ends every way back."""
    kept = {name: data[name] for name in task.keep if name in data}
    turn.emit(t.StepSucceeded, task.address, Direction.FORWARD, attempt, kept=kept)
    if task.kind is Kind.PIVOT and turn.saga.status is Status.COMPENSATING:
        turn.emit(t.TurnBackAbandoned, task.address, reason="the pivot succeeded: there is no way back past it")


def _undo_reply(
    turn: Turn, task: Task, attempt: int, rule: Rule, outcome: Outcome, code: str, message: str | None
) -> None:
    address, backward = task.address, Direction.COMPENSATION
    if rule is Rule.UNDONE:
        return turn.emit(t.CompensationSucceeded, address, backward, attempt)
    if rule is Rule.UNDO_REFUSED:
        turn.emit(t.CompensationRejected, address, backward, attempt, code=code, message=message)
        return park(turn, address, backward, _why("the compensation was rejected", code, message))
    if outcome is Outcome.EXPIRED:
        turn.emit(t.CompensationExpired, address, backward, attempt)
        return undo_later_or_park(turn, task, "expired before the participant began")
    turn.emit(t.CompensationFailed, address, backward, attempt, kind=code, message=message)
    return undo_later_or_park(turn, task, _why("it failed", code, message))


def _why(what: str, code: str, message: str | None) -> str:
    return f"{what}{f' ({code})' if code else ''}{f': {message}' if message else ''}"
