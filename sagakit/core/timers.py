"""Timers: one at a time, the earliest first, and only against partition time."""

from sagakit.core import schedule
from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.progress import attempt, retry_or_give_up, turn_back, undo, undo_later_or_park
from sagakit.core.state import Early, Marker, Saga, Status, StepStatus
from sagakit.core.transitions import Direction, Failure, FailureKind
from sagakit.core.turn import Turn


def timer_due(turn: Turn) -> None:
    """Fire the earliest timer of a state; only called when it is due."""
    state = turn.state
    if isinstance(state, Marker):
        turn.state = None
        return None
    if isinstance(state, Early):
        return _expire_early(turn, state)
    saga = turn.saga
    due = schedule.next_due_ms(saga)
    for address, step in saga.steps.items():
        if step.due_at_ms == due:
            return _step_due(turn, saga, address)
    for signal in saga.signals:
        if signal.expires_at_ms == due:
            return turn.emit(t.SignalExpired, name=signal.name, message_id=signal.message_id)
    return _deadline_due(turn, saga)


def _step_due(turn: Turn, saga: Saga, address: Address) -> None:
    task, step = turn.definition.tasks[address], saga.steps[address]
    if step.status is StepStatus.IN_FLIGHT:
        turn.emit(t.StepTimedOut, address, Direction.FORWARD, step.attempt)
        late = f"no reply within {task.command.timeout_ms} ms"
        return retry_or_give_up(turn, task, FailureKind.TIMED_OUT, None, late)
    if step.status is StepStatus.BACKING_OFF:
        return attempt(turn, task)
    if step.status is StepStatus.UNDOING:
        turn.emit(t.CompensationTimedOut, address, Direction.COMPENSATION, step.undo_attempt)
        return undo_later_or_park(turn, task, "no reply in time")
    return undo(turn, task)


def _deadline_due(turn: Turn, saga: Saga) -> None:
    definition = turn.definition
    turn.emit(t.DeadlinePassed)
    too_late = schedule.pivot_passed(definition, saga) or schedule.pivot_unknown(definition, saga) is not None
    if saga.status is Status.RUNNING and not too_late:
        turn_back(turn, Failure(step=None, kind=FailureKind.DEADLINE, code=None, message="the saga's deadline passed"))


def _expire_early(turn: Turn, early: Early) -> None:
    gone = min(early.signals, key=lambda signal: signal.expires_at_ms)
    turn.emit_outside(t.SignalExpired, name=gone.name, message_id=gone.message_id)
    left = tuple(signal for signal in early.signals if signal is not gone)
    turn.state = Early(saga_id=early.saga_id, signals=left) if left else None
