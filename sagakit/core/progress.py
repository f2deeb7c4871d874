"""How a saga goes on: forward along the graph, back along its reverse, to its end, or to a person.

What an event does to one step comes first; then `proceed`, once, does whatever follows for the saga as a whole.
"""

from typing import Final

from sagakit.core import ids, schedule
from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.definition import Kind, Publication, Task
from sagakit.core.events import Refused
from sagakit.core.retry import pause_ms
from sagakit.core.state import End, Saga, Status, StepStatus
from sagakit.core.transitions import Direction, Failure, FailureKind
from sagakit.core.turn import Turn
from sagakit.core.values import Data, EvaluationError, Opened

_TURNED_BACK: Final = "the saga turned back"


def proceed(turn: Turn) -> None:
    """Start whatever this turn has made ready, or end the saga. Where nothing has changed, nothing follows."""
    saga = turn.state
    if not isinstance(saga, Saga) or saga.parked is not None:
        return
    if saga.status is Status.RUNNING:
        _forward(turn)
    if turn.saga.status is Status.COMPENSATING:
        _backward(turn)
    end = schedule.end_reached(turn.definition, turn.saga)
    if end is not None:
        finish(turn, end)


def _forward(turn: Turn) -> None:
    seen = 0
    while seen < len(turn.transitions):
        new, seen = turn.transitions[seen:], len(turn.transitions)
        unlocked = schedule.unlocked(turn.definition, new)
        for task in schedule.startable(turn.definition, turn.saga, unlocked):
            begin(turn, task)
            if turn.saga.status is not Status.RUNNING:
                return


def _backward(turn: Turn) -> None:
    for task in schedule.undoable(turn.definition, turn.saga):
        undo(turn, task)


# Forward ------------------------------------------------------------------------------------------------------------


def begin(turn: Turn, task: Task) -> None:
    """Start a step that is ready: skip it if its condition is false, else send its first command."""
    if task.when is not None:
        wanted = task.when(turn.data())
        if not isinstance(wanted, bool):
            error = wanted if isinstance(wanted, EvaluationError) else _not_bool(wanted)
            return _mapping_failed(turn, task, "when", error)
        if not wanted:
            return turn.emit(t.StepSkipped, task.address, Direction.FORWARD)
    return attempt(turn, task)


def _not_bool(value: object) -> EvaluationError:
    return EvaluationError(
        expression="when", column=0, message=f"gives a value of type {type(value).__name__}, not true or false"
    )


def attempt(turn: Turn, task: Task) -> None:
    """Send the next command of a step. Its data is evaluated anew: what it reads does not change during a run."""
    address, forward = task.address, Direction.FORWARD
    data = turn.values(task.command.fields)
    if isinstance(data, tuple):
        return _mapping_failed(turn, task, *data)
    refused = _refused(turn, Refused.COMMAND, address, forward)
    if refused is not None:
        return park(turn, address, forward, refused)
    step = turn.saga.steps.get(address)
    number = 1 if step is None else step.attempt + 1
    command_id, due_at_ms = turn.send(task, task.command, forward, number, data)
    return turn.emit(t.StepScheduled, address, forward, number, command_id=command_id, data=data, due_at_ms=due_at_ms)


def _mapping_failed(turn: Turn, task: Task, field: str, error: EvaluationError) -> None:
    message = _no_value(turn, task.address, Direction.FORWARD, field, error)
    fail(turn, task, FailureKind.MAPPING, None, message)


def retry_or_give_up(turn: Turn, task: Task, kind: FailureKind, code: str | None, message: str | None) -> None:
    """After an attempt that failed, expired or timed out: wait for the next one, or give the step up."""
    saga, address = turn.saga, task.address
    step = saga.steps[address]
    pause = None
    if saga.status is Status.RUNNING:
        command_id = ids.command_id(saga.saga_id, saga.run, address, Direction.FORWARD.value, step.attempt)
        pause = pause_ms(task.command.retry, step.attempt - step.budget_from, command_id)
    if pause is not None:
        due_at_ms = turn.at_ms + pause
        return turn.emit(t.StepRetryScheduled, address, Direction.FORWARD, step.attempt + 1, due_at_ms=due_at_ms)
    reason = _TURNED_BACK if saga.status is Status.COMPENSATING else "the attempts are used up"
    turn.emit(t.StepGivenUp, address, Direction.FORWARD, step.attempt, reason=reason)
    return fail(turn, task, kind, code, message)


def fail(turn: Turn, task: Task, kind: FailureKind, code: str | None, message: str | None) -> None:
    """A step is settled without success: turn back, or, where there is no way back, call a person."""
    if schedule.irreversible(turn.definition, turn.saga, task):
        what = f"{kind.value}{'' if code is None else f' ({code})'}{'' if message is None else f': {message}'}"
        where = "its outcome is unknown" if task.kind is Kind.PIVOT else "there is no way back past the pivot"
        park(turn, task.address, Direction.FORWARD, f"{what}; {where}")
    elif turn.saga.status is Status.RUNNING:
        turn_back(turn, Failure(step=task.address, kind=kind, code=code, message=message))


def turn_back(turn: Turn, failure: Failure) -> None:
    """Start nothing new, give up what only waits, await what is in flight, then undo."""
    turn.emit(t.SagaTurnedBack, failure.step, failure=failure)
    give_up_waiting(turn)


def give_up_waiting(turn: Turn) -> None:
    """On the way back no step waits for an attempt or a person, but an unknown pivot: that one needs a person."""
    for address, step in turn.saga.steps.items():
        if step.status not in schedule.WAITING:
            continue
        if turn.definition.tasks[address].kind is not Kind.PIVOT or not step.unknown:
            turn.emit(t.StepGivenUp, address, Direction.FORWARD, step.attempt or None, reason=_TURNED_BACK)
        elif step.status is StepStatus.BACKING_OFF:
            park(turn, address, Direction.FORWARD, f"{_TURNED_BACK} while the pivot's outcome is unknown")


# Backwards ----------------------------------------------------------------------------------------------------------


def undo(turn: Turn, task: Task) -> None:
    """Send the next command that compensates a step."""
    address, command, backward = task.address, task.compensate, Direction.COMPENSATION
    assert command is not None
    data = turn.values(command.fields)
    if isinstance(data, tuple):
        return park(turn, address, backward, _no_value(turn, address, backward, *data))
    refused = _refused(turn, Refused.COMPENSATION, address, backward)
    if refused is not None:
        return park(turn, address, backward, refused)
    number = turn.saga.steps[address].undo_attempt + 1
    command_id, due_at_ms = turn.send(task, command, backward, number, data)
    return turn.emit(
        t.CompensationScheduled,
        address,
        backward,
        number,
        command_id=command_id,
        undoes=turn.effect_key(address),
        data=data,
        due_at_ms=due_at_ms,
    )


def undo_later_or_park(turn: Turn, task: Task, reason: str) -> None:
    """After an attempt to compensate that failed, expired or timed out: wait for the next one, or call a person."""
    saga, address, backward = turn.saga, task.address, Direction.COMPENSATION
    step = saga.steps[address]
    assert task.compensate is not None
    command_id = ids.command_id(saga.saga_id, saga.run, address, backward.value, step.undo_attempt)
    pause = pause_ms(task.compensate.retry, step.undo_attempt - step.undo_budget_from, command_id)
    if pause is None:
        return park(turn, address, backward, f"the attempts to compensate are used up: {reason}")
    due_at_ms = turn.at_ms + pause
    return turn.emit(t.CompensationRetryScheduled, address, backward, step.undo_attempt + 1, due_at_ms=due_at_ms)


# To a person, and to the end ----------------------------------------------------------------------------------------


def park(turn: Turn, address: Address | None, direction: Direction | None, reason: str) -> None:
    """Hand a step, or the saga as a whole, to a person."""
    turn.emit(t.SagaParked, address, direction, reason=reason)


def _no_value(
    turn: Turn, address: Address | None, direction: Direction | None, field: str, error: EvaluationError
) -> str:
    """Record an expression that has no value; what to tell people of it."""
    turn.emit(
        t.MappingFailed,
        address,
        direction,
        field=field,
        expression=error.expression,
        column=error.column,
        message=error.message,
    )
    return f"{field}: {error.message}"


def _refused(
    turn: Turn, target: Refused, address: Address | None = None, direction: Direction | None = None
) -> str | None:
    """Record that this target could not be sent, if so; what to tell people of it."""
    refusal = turn.refusal(target, address)
    if refusal is None:
        return None
    turn.emit(t.SendFailed, address, direction, target=target.value, reason=refusal.reason)
    return f"the {target.value} cannot be sent: {refusal.reason}"


def finish(turn: Turn, end: End, *, forced: bool = False, instead: Opened | None = None) -> None:
    """End the saga with its domain event and its result; where one has no value or cannot be sent, call a person.

    That person may have it `forced`: it ends without what cannot be sent, or with the event that stands `instead`.
    """
    publication = schedule.publication(turn.definition, end)
    data, problem = None, None
    if publication is not None:
        data, problem = _event_at_end(turn, publication, instead)
    result_refused = _refused(turn, Refused.RESULT)
    problem = problem or result_refused
    if problem is not None and not forced:
        return park(turn, None, None, f"at the end: {problem}")
    if publication is not None and data is not None:
        turn.publish(publication, data)
    if result_refused is None:
        turn.send_result(end)
    kind = t.SagaCompleted if end is End.COMPLETED else t.SagaCompensated
    return turn.emit(kind, marker_expires_at_ms=turn.partition_ms + turn.definition.dedupe_ms)


def _event_at_end(turn: Turn, publication: Publication, instead: Opened | None) -> tuple[Data | None, str | None]:
    """The data of the event at the end; or why there is none."""
    refused = _refused(turn, Refused.EVENT)
    if refused is not None:
        return None, refused
    data = turn.values(publication.fields) if instead is None else instead.data
    if isinstance(data, tuple):
        return None, _no_value(turn, None, None, *data)
    return data, None
