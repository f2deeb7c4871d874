"""What may run next: forward along the graph, backwards along its reverse, and when the clock has to look again."""

from collections.abc import Iterable
from typing import Final

from sagakit.core.address import Address
from sagakit.core.definition import Definition, Kind, Task
from sagakit.core.state import Early, Marker, Saga, State, Step, StepStatus

SETTLED: Final = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED})
"""Forward and done: what depends on such a step may run."""

ACTIVE: Final = frozenset({StepStatus.IN_FLIGHT, StepStatus.BACKING_OFF, StepStatus.PARKED})
"""Forward and not settled: no compensation begins beside such a step."""

_UNDO_OPEN: Final = frozenset({StepStatus.UNDOING, StepStatus.UNDO_BACKING_OFF, StepStatus.UNDO_PARKED})


def startable(definition: Definition, saga: Saga, candidates: Iterable[Address]) -> list[Task]:
    """Those of `candidates` that were not reached yet and whose predecessors are all settled."""
    steps = saga.steps
    return [
        task
        for task in map(definition.tasks.__getitem__, candidates)
        if task.address not in steps
        and all((before := steps.get(address)) is not None and before.status in SETTLED for address in task.after)
    ]


def completed(definition: Definition, saga: Saga) -> bool:
    """Whether every step is settled forward."""
    return len(saga.steps) == len(definition.tasks) and all(step.status in SETTLED for step in saga.steps.values())


def pivot_passed(definition: Definition, saga: Saga) -> bool:
    """Whether there is no way back any more. A skipped pivot counts as passed."""
    steps = saga.steps
    return any((step := steps.get(pivot)) is not None and step.status in SETTLED for pivot in definition.pivots)


def pivot_unknown(definition: Definition, saga: Saga) -> bool:
    """Whether a pivot is parked that may have happened: only a person can say which way to go."""
    steps = saga.steps
    return any(
        (step := steps.get(pivot)) is not None and step.status is StepStatus.PARKED and bool(step.unknown)
        for pivot in definition.pivots
    )


def active(saga: Saga) -> bool:
    """Whether some forward step is in flight, waits for its next attempt, or is parked."""
    return any(step.status in ACTIVE for step in saga.steps.values())


def undoable(definition: Definition, saga: Saga) -> tuple[list[Task], bool]:
    """What can be compensated now, and whether everything is undone.

    A compensation may start when every step that depended on its step is settled and, if it took effect, compensated; also
    through steps that had no effect of their own. Nothing may start while a forward step is active.
    """
    if active(saga):
        return [], False
    ready: list[Task] = []
    cleared: set[Address] = set()
    for task in definition.backwards:
        address = task.address
        if not all(dependent in cleared for dependent in definition.dependents[address]):
            continue
        step = saga.steps.get(address)
        if step is None or not _needs_undo(task, step):
            cleared.add(address)
        elif step.status not in _UNDO_OPEN:
            ready.append(task)
    return ready, len(cleared) == len(definition.tasks)


def _needs_undo(task: Task, step: Step) -> bool:
    if step.status in _UNDO_OPEN:
        return True
    return task.compensate is not None and step.status is not StepStatus.UNDONE and step.may_have_happened


def irreversible(definition: Definition, saga: Saga, task: Task) -> bool:
    """Whether a failure of `task` leaves no way back: it is past the pivot, or it is the pivot and may have happened."""
    if task.kind is Kind.RETRIABLE or pivot_passed(definition, saga):
        return True
    return task.kind is Kind.PIVOT and bool(saga.steps[task.address].unknown)


def next_due_ms(state: State) -> int | None:
    """When the earliest timer of a state is due; None when nothing is waited for by the clock."""
    match state:
        case Marker():
            return state.expires_at_ms
        case Early():
            return min(signal.expires_at_ms for signal in state.signals)
        case Saga():
            if state.parked is not None:
                return None
            dues = [step.due_at_ms for step in state.steps.values() if step.due_at_ms is not None]
            dues += [signal.expires_at_ms for signal in state.signals]
            if state.deadline_at_ms is not None:
                dues.append(state.deadline_at_ms)
            return min(dues, default=None)
