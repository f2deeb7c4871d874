"""How a saga goes on: forward along the graph, back along its reverse, to its end, or to a person."""

from collections.abc import Iterable

from sagakit.core import ids, schedule
from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.definition import Kind, Task
from sagakit.core.events import Refused
from sagakit.core.retry import pause_ms
from sagakit.core.state import End, Saga, Status, StepStatus
from sagakit.core.transitions import Direction, Failure, FailureKind
from sagakit.core.turn import Turn
from sagakit.core.values import EvaluationError


def proceed(turn: Turn, candidates: Iterable[Address] | None = None) -> None:
    """Start whatever may start now, or end the saga.

    `candidates` are the steps that may have become ready; None looks at all of them.
    """
    saga = turn.state
    if not isinstance(saga, Saga) or saga.parked is not None:
        return
    if saga.status is Status.RUNNING:
        _forward(turn, turn.definition.tasks if candidates is None else candidates)
    else:
        _backward(turn)


def _forward(turn: Turn, candidates: Iterable[Address]) -> None:
    waiting = list(candidates)
    while waiting:
        ready = schedule.startable(turn.definition, turn.saga, dict.fromkeys(waiting))
        waiting = []
        for task in ready:
            begin(turn, task)
            if turn.saga.status is not Status.RUNNING:
                return
            if turn.saga.steps[task.address].status is StepStatus.SKIPPED:
                waiting.extend(turn.definition.dependents[task.address])
    if schedule.completed(turn.definition, turn.saga):
        _end(turn, End.COMPLETED)


def _backward(turn: Turn) -> None:
    ready, undone = schedule.undoable(turn.definition, turn.saga)
    for task in ready:
        undo(turn, task)
    if undone:
        _end(turn, End.COMPENSATED)


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
    return EvaluationError(expression="when", column=0, message=f"gives {value!r}, not true or false")


def attempt(turn: Turn, task: Task) -> None:
    """Send the next command of a step. Its data is evaluated anew: what it reads does not change during a run."""
    address = task.address
    step = turn.saga.steps.get(address)
    number = 1 if step is None else step.attempt + 1
    data = turn.values(task.command.fields)
    if isinstance(data, tuple):
        return _mapping_failed(turn, task, *data)
    refusal = turn.refusal(Refused.COMMAND, address)
    if refusal is not None:
        turn.emit(t.SendFailed, address, Direction.FORWARD, target=refusal.target.value, reason=refusal.reason)
        return park(turn, address, Direction.FORWARD, f"the command cannot be sent: {refusal.reason}")
    command_id, due_at_ms = turn.send(task, task.command, Direction.FORWARD, number, data)
    turn.emit(t.StepScheduled, address, Direction.FORWARD, number, command_id=command_id, data=data, due_at_ms=due_at_ms)


def _mapping_failed(turn: Turn, task: Task, field: str, error: EvaluationError) -> None:
    turn.emit(
        t.MappingFailed,
        task.address,
        Direction.FORWARD,
        field=field,
        expression=error.expression,
        column=error.column,
        message=error.message,
    )
    fail(turn, task, FailureKind.MAPPING, None, f"{field}: {error.message}")


def retry_or_give_up(turn: Turn, task: Task, kind: FailureKind, code: str | None, message: str | None) -> None:
    """After an attempt that failed, expired or timed out: wait for the next one, or give the step up."""
    saga, address = turn.saga, task.address
    step = saga.steps[address]
    pause = None
    if saga.status is Status.RUNNING:
        command_id = ids.command_id(saga.saga_id, saga.run, address, Direction.FORWARD.value, step.attempt)
        pause = pause_ms(task.command.retry, step.attempt - step.budget_from, command_id)
    if pause is not None:
        turn.emit(t.StepRetryScheduled, address, Direction.FORWARD, step.attempt + 1, due_at_ms=turn.at_ms + pause)
        return
    reason = "the saga turned back" if saga.status is Status.COMPENSATING else "the attempts are used up"
    turn.emit(t.StepGivenUp, address, Direction.FORWARD, step.attempt, reason=reason)
    fail(turn, task, kind, code, message)


def fail(turn: Turn, task: Task, kind: FailureKind, code: str | None, message: str | None) -> None:
    """A step is settled without success: turn back, or, where there is no way back, call a person."""
    if schedule.irreversible(turn.definition, turn.saga, task):
        what = f"{kind.value}{'' if code is None else f' ({code})'}{'' if message is None else f': {message}'}"
        where = "its outcome is unknown" if task.kind is Kind.PIVOT else "there is no way back past the pivot"
        return park(turn, task.address, Direction.FORWARD, f"{what}; {where}")
    if turn.saga.status is Status.RUNNING:
        return turn_back(turn, Failure(step=task.address, kind=kind, code=code, message=message))
    return proceed(turn)


def turn_back(turn: Turn, failure: Failure) -> None:
    """Start nothing new, give up what only waits, await what is in flight, then undo."""
    turn.emit(t.SagaTurnedBack, failure.step, failure=failure)
    for address, step in turn.saga.steps.items():
        if step.status not in (StepStatus.BACKING_OFF, StepStatus.PARKED):
            continue
        task = turn.definition.tasks[address]
        if task.kind is Kind.PIVOT and step.unknown:
            if step.status is StepStatus.BACKING_OFF:
                park(turn, address, Direction.FORWARD, "the saga turned back while the pivot's outcome is unknown")
            continue
        turn.emit(t.StepGivenUp, address, Direction.FORWARD, step.attempt, reason="the saga turned back")
    proceed(turn)


def park(turn: Turn, address: Address | None, direction: Direction | None, reason: str) -> None:
    """Hand a step, or the saga as a whole, to a person."""
    turn.emit(t.SagaParked, address, direction, reason=reason)


def undo(turn: Turn, task: Task) -> None:
    """Send the next command that compensates a step."""
    address, command = task.address, task.compensate
    assert command is not None
    number = turn.saga.steps[address].undo_attempt + 1
    data = turn.values(command.fields)
    if isinstance(data, tuple):
        field, error = data
        turn.emit(
            t.MappingFailed,
            address,
            Direction.COMPENSATION,
            field=field,
            expression=error.expression,
            column=error.column,
            message=error.message,
        )
        return park(turn, address, Direction.COMPENSATION, f"{field} of the compensation: {error.message}")
    refusal = turn.refusal(Refused.COMPENSATION, address)
    if refusal is not None:
        turn.emit(t.SendFailed, address, Direction.COMPENSATION, target=refusal.target.value, reason=refusal.reason)
        return park(turn, address, Direction.COMPENSATION, f"the compensation cannot be sent: {refusal.reason}")
    command_id, due_at_ms = turn.send(task, command, Direction.COMPENSATION, number, data)
    undoes = ids.idempotency_key(turn.saga.saga_id, turn.saga.run, address, Direction.FORWARD.value, 0)
    turn.emit(
        t.CompensationScheduled,
        address,
        Direction.COMPENSATION,
        number,
        command_id=command_id,
        undoes=undoes,
        data=data,
        due_at_ms=due_at_ms,
    )


def undo_later_or_park(turn: Turn, task: Task, reason: str) -> None:
    """After an attempt to compensate that failed, expired or timed out: wait for the next one, or call a person."""
    saga, address = turn.saga, task.address
    step = saga.steps[address]
    assert task.compensate is not None
    command_id = ids.command_id(saga.saga_id, saga.run, address, Direction.COMPENSATION.value, step.undo_attempt)
    pause = pause_ms(task.compensate.retry, step.undo_attempt - step.undo_budget_from, command_id)
    if pause is None:
        return park(turn, address, Direction.COMPENSATION, f"the attempts to compensate are used up: {reason}")
    turn.emit(
        t.CompensationRetryScheduled,
        address,
        Direction.COMPENSATION,
        step.undo_attempt + 1,
        due_at_ms=turn.at_ms + pause,
    )


def _end(turn: Turn, end: End) -> None:
    """End the saga with its domain event and its result; where one has no value or cannot be sent, call a person."""
    definition = turn.definition
    publication = definition.completed if end is End.COMPLETED else definition.compensated
    for target in (Refused.EVENT, Refused.RESULT):
        refusal = turn.refusal(target)
        if refusal is not None:
            turn.emit(t.SendFailed, target=target.value, reason=refusal.reason)
            return park(turn, None, None, f"the {target.value} of the end cannot be sent: {refusal.reason}")
    if publication is not None:
        data = turn.values(publication.fields)
        if isinstance(data, tuple):
            field, error = data
            turn.emit(
                t.MappingFailed,
                field=field,
                expression=error.expression,
                column=error.column,
                message=error.message,
            )
            return park(turn, None, None, f"{field} of the event at the end: {error.message}")
        turn.publish(publication, data)
    turn.send_result(end)
    kind = t.SagaCompleted if end is End.COMPLETED else t.SagaCompensated
    turn.emit(kind, marker_expires_at_ms=turn.partition_ms + definition.dedupe_ms)
