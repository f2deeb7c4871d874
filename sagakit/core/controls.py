"""What an operator asks of a live saga. A control that its state does not allow is recorded, with the remedy.

Each park has a way on and, before the pivot has passed, a way back: `retry` does again what failed; `skip` puts
something in its place, or ends the saga without what cannot be sent; `cancel` turns the saga back, and where a pivot's
outcome is unknown, `cancel` with that step's name says that it did not happen.
"""

from typing import Final

from sagakit.core import schedule
from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.events import Control, Verb
from sagakit.core.progress import attempt, begin, finish, turn_back, undo
from sagakit.core.replies import succeed
from sagakit.core.state import Saga, Status, StepStatus
from sagakit.core.transitions import Direction, Failure, FailureKind
from sagakit.core.turn import Turn
from sagakit.core.values import Opened

_PARKED: Final = (StepStatus.PARKED, StepStatus.UNDO_PARKED)
_SKIPPABLE: Final = (*_PARKED, StepStatus.BACKING_OFF, StepStatus.UNDO_BACKING_OFF)


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
    unknown = schedule.pivot_unknown(definition, saga)
    if unknown is not None and event.address != unknown:
        remedy = "if it happened, skip it with its reply; if not, cancel it by name; or retry it"
        return _ignore(turn, event, f"{unknown} may have happened: find out; {remedy}")
    if unknown is None and saga.status is Status.COMPENSATING:
        parked = "" if saga.parked is None else ", and waits for a person: retry it to let it go on"
        return _ignore(turn, event, f"the saga is already being undone{parked}")
    turn.emit(t.CancelRequested, unknown)
    if saga.parked is not None:
        turn.emit(t.SagaUnparked)
    if unknown is not None:
        said = "an operator says that it did not happen"
        turn.emit(t.StepGivenUp, unknown, Direction.FORWARD, saga.steps[unknown].attempt, reason=said)
    if saga.status is Status.RUNNING:
        failure = Failure(step=None, kind=FailureKind.CANCELLED, code=None, message=event.cause.reason)
        turn_back(turn, failure)


def _named(saga: Saga, event: Control, allowed: tuple[StepStatus, ...]) -> list[Address]:
    """The steps that a control is for: the one it names, or every one that it could be for."""
    return [
        address
        for address, step in saga.steps.items()
        if step.status in allowed and (event.address is None or event.address == address)
    ]


def _retry(turn: Turn, event: Control) -> None:
    saga = turn.saga
    steps = _named(saga, event, _PARKED)
    whole = saga.parked is not None and event.address is None
    if not steps and not whole:
        return _ignore(turn, event, f"{event.address or 'the saga'} is not parked: there is nothing to retry")
    if whole:
        turn.emit(t.SagaUnparked)
    for address in steps:
        # A step that fails at once may have turned the saga back, and that gives up the parked ones after it.
        if turn.saga.steps[address].status in _PARKED:
            _retry_step(turn, address)
    return None


def _retry_step(turn: Turn, address: Address) -> None:
    task, step = turn.definition.tasks[address], turn.saga.steps[address]
    if step.status is StepStatus.UNDO_PARKED:
        turn.emit(t.SagaUnparked, address, Direction.COMPENSATION)
        return undo(turn, task)
    turn.emit(t.SagaUnparked, address, Direction.FORWARD)
    return attempt(turn, task) if step.attempt else begin(turn, task)


def _skip(turn: Turn, event: Control) -> None:
    saga = turn.saga
    steps = _named(saga, event, _SKIPPABLE)
    if not steps and event.address is None and schedule.end_reached(turn.definition, saga) is not None:
        return _skip_at_end(turn, event)
    if len(steps) != 1:
        which = "no step waits for a person or a retry" if not steps else f"name one of {', '.join(steps)}"
        return _ignore(turn, event, f"{event.address or 'nothing'} cannot be skipped: {which}")
    address = steps[0]
    task, step = turn.definition.tasks[address], saga.steps[address]
    if step.status in (StepStatus.UNDO_PARKED, StepStatus.UNDO_BACKING_OFF):
        return turn.emit(t.CompensationSucceeded, address, Direction.COMPENSATION, step.undo_attempt or None)
    if _stands_in(event.payload, task.command.reply, needed=bool(task.keep)):
        return succeed(turn, task, step.attempt or None, turn.definition.data_of(event.payload))
    return _ignore(turn, event, f"skipping {address} needs the reply {task.command.reply} that it stands in for")


def _skip_at_end(turn: Turn, event: Control) -> None:
    """End a saga that is parked because its event or its result cannot be made or sent."""
    end = schedule.end_reached(turn.definition, turn.saga)
    assert end is not None
    publication = schedule.publication(turn.definition, end)
    wanted = None if publication is None else publication.type
    if not _stands_in(event.payload, wanted, needed=False):
        return _ignore(turn, event, f"what stands in for the event at the end must be {wanted}")
    turn.emit(t.SagaUnparked)
    return finish(turn, end, forced=True, instead=event.payload)


def _stands_in(payload: Opened | None, wanted: str | None, *, needed: bool) -> bool:
    """Whether what an operator gives can stand in for a record of the type `wanted`."""
    return not needed if payload is None else payload.type == wanted
