"""What may run next: forward along the graph, backwards along its reverse, and when the clock has to look again."""

from collections.abc import Iterable
from typing import Final

from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.definition import Definition, Kind, Publication, Task
from sagakit.core.state import Early, End, Marker, Saga, State, Status, Step, StepStatus
from sagakit.core.transitions import Transition

SETTLED: Final = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED})
"""Forward and done: what depends on such a step may run."""

WAITING: Final = frozenset({StepStatus.BACKING_OFF, StepStatus.PARKED})
"""Forward, not settled, and no reply awaited."""

_ACTIVE: Final = WAITING | {StepStatus.IN_FLIGHT}
"""Forward and not settled: no compensation begins beside such a step."""

_UNDO_OPEN: Final = frozenset({StepStatus.UNDOING, StepStatus.UNDO_BACKING_OFF, StepStatus.UNDO_PARKED})


def unlocked(definition: Definition, transitions: Iterable[Transition]) -> Iterable[Address]:
    """The steps that these transitions may have made ready, each once; all of them where the whole saga moved."""
    found: dict[Address, None] = {}
    for transition in transitions:
        kind, step = type(transition), transition.header.step
        if step is not None and kind in (t.StepSucceeded, t.StepSkipped):
            found.update(dict.fromkeys(definition.dependents[step]))
        elif kind in (t.SagaStarted, t.TurnBackAbandoned) or (kind is t.SagaUnparked and step is None):
            return definition.tasks
    return found


def startable(definition: Definition, saga: Saga, candidates: Iterable[Address]) -> list[Task]:
    """Those of `candidates` that were not reached yet and whose predecessors are all settled."""
    steps = saga.steps
    return [
        task
        for task in map(definition.tasks.__getitem__, candidates)
        if task.address not in steps
        and all((before := steps.get(address)) is not None and before.status in SETTLED for address in task.after)
    ]


def end_reached(definition: Definition, saga: Saga) -> End | None:
    """The end that a saga has come to: every step settled forward, or all undone that may have taken effect."""
    steps = saga.steps
    if saga.status is Status.RUNNING:
        done = len(steps) == len(definition.tasks) and all(step.status in SETTLED for step in steps.values())
        return End.COMPLETED if done else None
    tasks = definition.tasks
    open_steps = any(step.status in _ACTIVE or _needs_undo(tasks[address], step) for address, step in steps.items())
    return None if open_steps else End.COMPENSATED


def publication(definition: Definition, end: End) -> Publication | None:
    """The domain event that the definition publishes at this end."""
    return definition.completed if end is End.COMPLETED else definition.compensated


def pivot_passed(definition: Definition, saga: Saga) -> bool:
    """Whether there is no way back any more. A skipped pivot counts as passed."""
    steps = saga.steps
    return any((step := steps.get(pivot)) is not None and step.status in SETTLED for pivot in definition.pivots)


def pivot_unknown(definition: Definition, saga: Saga) -> Address | None:
    """The pivot that is parked and may have happened: only a person can say which way to go."""
    for pivot in definition.pivots:
        step = saga.steps.get(pivot)
        if step is not None and step.status is StepStatus.PARKED and step.unknown:
            return pivot
    return None


def undoable(definition: Definition, saga: Saga) -> list[Task]:
    """What can be compensated now.

    A compensation may start when every step that depended on its step is settled and, if it took effect, compensated;
    also through steps that had no effect of their own. Nothing may start while a forward step is active.
    """
    steps, ready = saga.steps, []
    held: set[Address] = set()
    for task in definition.backwards:
        step = steps.get(task.address)
        if step is not None and step.status in _ACTIVE:
            return []
        if task.address in held:
            held.update(task.after)
        elif step is not None and _needs_undo(task, step):
            held.update(task.after)
            if step.status not in _UNDO_OPEN:
                ready.append(task)
    return ready


def _needs_undo(task: Task, step: Step) -> bool:
    if step.status in _UNDO_OPEN:
        return True
    return task.compensate is not None and step.status is not StepStatus.UNDONE and step.may_have_happened


def irreversible(definition: Definition, saga: Saga, task: Task) -> bool:
    """Whether a failure of `task` leaves no way back: past the pivot, or at the pivot if that may have happened."""
    if task.kind is Kind.RETRIABLE or pivot_passed(definition, saga):
        return True
    return task.kind is Kind.PIVOT and bool(saga.steps[task.address].unknown)


def next_due_ms(state: State) -> int | None:
    """When the earliest timer of a state is due; None when nothing is waited for by the clock."""
    match state:
        case Marker():
            return state.expires_at_ms
        case Early():
            return min((signal.expires_at_ms for signal in state.signals), default=None)
        case Saga():
            if state.parked is not None:
                return None
            dues = [step.due_at_ms for step in state.steps.values() if step.due_at_ms is not None]
            dues += [signal.expires_at_ms for signal in state.signals]
            if state.deadline_at_ms is not None:
                dues.append(state.deadline_at_ms)
            return min(dues, default=None)


def is_due(state: State | None, partition_ms: int) -> bool:
    """Whether the earliest timer of a state may fire at this partition time."""
    due_ms = None if state is None else next_due_ms(state)
    return due_ms is not None and due_ms <= partition_ms
