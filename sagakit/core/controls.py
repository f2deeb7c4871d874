"""What an operator asks of a live saga. A control that its state does not allow is recorded, with the remedy."""

from sagakit.core import schedule
from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.events import Control, Verb
from sagakit.core.progress import attempt, begin, proceed, turn_back, undo
from sagakit.core.replies import succeed
from sagakit.core.state import Saga, Status, StepStatus
from sagakit.core.transitions import Direction, Failure, FailureKind
from sagakit.core.turn import Turn

_PARKED = (StepStatus.PARKED, StepStatus.UNDO_PARKED)
_SKIPPABLE = (*_PARKED, StepStatus.BACKING_OFF, StepStatus.UNDO_BACKING_OFF)


def control(turn: Turn, event: Control) -> None:
    """Decide a control for a live saga."""
    if event.verb is Verb.CANCEL:
        return _cancel(turn, event)
    if event.verb is Verb.RETRY:
        return _retry(turn, event)
    return _skip(turn, event)


def _ignore(turn: Turn, event: Control, reason: str) -> None:
    turn.emit(t.ControlIgnored, event.address, verb=event.verb, reason=reason)


def _cancel(turn: Turn, event: Control) -> None:
    definition, saga = turn.definition, turn.saga
    if schedule.pivot_passed(definition, saga):
        return _ignore(turn, event, "the pivot has passed: from here the saga only goes forward")
    if saga.status is Status.COMPENSATING:
        return _ignore(turn, event, "the saga is already being undone")
    if schedule.pivot_unknown(definition, saga):
        return _ignore(turn, event, "the pivot may have happened: find out, then retry it or skip it with its reply")
    turn.emit(t.CancelRequested)
    failure = Failure(step=None, kind=FailureKind.CANCELLED, code=None, message=event.cause.reason)
    return turn_back(turn, failure)


def _named(saga: Saga, event: Control, allowed: tuple[StepStatus, ...]) -> list[Address]:
    """The steps that a control is for: the one it names, or every one that it could be for."""
    return [address for address, step in saga.steps.items() if step.status in allowed and event.address in (None, address)]


def _retry(turn: Turn, event: Control) -> None:
    saga = turn.saga
    steps = _named(saga, event, _PARKED)
    if not steps and (saga.parked is None or event.address is not None):
        return _ignore(turn, event, f"{event.address or 'the saga'} is not parked: there is nothing to retry")
    if saga.parked is not None and event.address is None:
        turn.emit(t.SagaUnparked)
    for address in steps:
        _retry_step(turn, address)
    return proceed(turn)


def _retry_step(turn: Turn, address: Address) -> None:
    task, step = turn.definition.tasks[address], turn.saga.steps[address]
    if step.status is StepStatus.UNDO_PARKED:
        turn.emit(t.SagaUnparked, address, Direction.COMPENSATION)
        return undo(turn, task)
    turn.emit(t.SagaUnparked, address, Direction.FORWARD)
    return attempt(turn, task) if step.attempt else begin(turn, task)


def _skip(turn: Turn, event: Control) -> None:
    steps = _named(turn.saga, event, _SKIPPABLE)
    if len(steps) != 1:
        which = "no step waits for a person or a retry" if not steps else f"name one of {', '.join(steps)}"
        return _ignore(turn, event, f"{event.address or 'nothing'} cannot be skipped: {which}")
    address = steps[0]
    task, step = turn.definition.tasks[address], turn.saga.steps[address]
    if step.status in (StepStatus.UNDO_PARKED, StepStatus.UNDO_BACKING_OFF):
        turn.emit(t.CompensationSucceeded, address, Direction.COMPENSATION, step.undo_attempt)
        return proceed(turn)
    wanted = task.command.reply
    got = None if event.payload is None else event.payload.type
    if (task.keep or got is not None) and got != wanted:
        return _ignore(turn, event, f"skipping {address} needs the reply {wanted} that it stands in for, not {got}")
    return succeed(turn, task, step.attempt, {} if event.payload is None else event.payload.data)
