"""What holds in every history of every saga, each rule by its name.

Property tests, simulation and the tests that kill processes ask the same questions here. Everything is plain data: a
history in log order, the definitions by name and version, and, where a rule is about the world, the effects that stand
in it by idempotency key.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sagakit.core import ids
from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.definition import Again, Definition, Kind
from sagakit.core.events import TimerDue
from sagakit.core.evolve import BrokenHistoryError, evolve
from sagakit.core.schedule import SETTLED, WAITING, next_due_ms
from sagakit.core.state import End, Marker, Saga, State, Status, Step, StepStatus
from sagakit.core.transitions import Direction, Transition
from sagakit.proving.replay import DefinitionOf, replay

IGNORED: Final = (t.StartIgnored, t.SignalIgnored, t.ControlIgnored, t.ReplyIgnored, t.RecordDeadLettered)
"""What is only recorded; after an end there is nothing else."""

_BUSY: Final = WAITING | {StepStatus.IN_FLIGHT}
_UNDOING: Final = frozenset({StepStatus.UNDOING, StepStatus.UNDO_BACKING_OFF, StepStatus.UNDO_PARKED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that a history breaks, where, and how."""

    rule: str
    saga_id: str
    run: int | None
    seq: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.saga_id}/{self.run}/{self.seq}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One transition of a run with the state before and after it."""

    transition: Transition
    before: State | None
    after: State | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a saga: its definition, its transitions folded one by one, and what it folds to."""

    definition: Definition
    facts: tuple[Fact, ...]
    state: State | None


Found: TypeAlias = Iterator[tuple[Transition, str]]
Rule: TypeAlias = Callable[[Run], Found]


def runs(history: Sequence[Transition], definition_of: DefinitionOf) -> Iterator[Run]:
    """The runs of one saga id's history, which stands in log order.

    Raises:
        BrokenHistoryError: when transitions are missing.
    """
    state: State | None = None
    facts: list[Fact] = []
    for transition in history:
        if transition.header.run is None:
            continue
        if isinstance(transition, t.SagaStarted) and facts:
            yield _run(facts, definition_of)
            facts = []
        after = evolve(state, transition)
        facts.append(Fact(transition=transition, before=state, after=after))
        state = after
    if facts:
        yield _run(facts, definition_of)


def _run(facts: Sequence[Fact], definition_of: DefinitionOf) -> Run:
    first = facts[0].transition.header
    if first.definition is None or first.version is None:
        raise BrokenHistoryError(f"{first.saga_id}/{first.run}/{first.seq} does not say which definition runs")
    definition = definition_of(first.definition, first.version)
    return Run(definition=definition, facts=tuple(facts), state=facts[-1].after)


def check(saga_id: str, history: Sequence[Transition], definition_of: DefinitionOf) -> list[Violation]:
    """Every rule that the history of one saga id breaks."""
    broken: list[Violation] = []
    for rule, what in _unreplayable(saga_id, history, definition_of):
        broken.append(Violation(rule=rule, saga_id=saga_id, run=None, seq=None, what=what))
    if not any(violation.rule == UNBROKEN for violation in broken):
        for run in runs(history, definition_of):
            broken.extend(_broken(saga_id, run, RULES))
    return broken


def check_at_rest(saga_id: str, history: Sequence[Transition], definition_of: DefinitionOf) -> list[Violation]:
    """The rules for a world in which nothing is under way any more: no record to read, no timer to fire."""
    return [violation for run in runs(history, definition_of) for violation in _broken(saga_id, run, RULES_AT_REST)]


def _broken(saga_id: str, run: Run, rules: Mapping[str, Rule]) -> Iterator[Violation]:
    for name, rule in rules.items():
        for transition, what in rule(run):
            header = transition.header
            yield Violation(rule=name, saga_id=saga_id, run=header.run, seq=header.seq, what=what)


UNBROKEN: Final = "sequence numbers have no gap and none comes twice"
REPLAYS: Final = "the inputs decided again give the same transitions, and their fold is the state"


def _unreplayable(
    saga_id: str, history: Sequence[Transition], definition_of: DefinitionOf
) -> Iterator[tuple[str, str]]:
    try:
        for difference in replay(saga_id, history, definition_of).differences:
            yield REPLAYS, difference
    except BrokenHistoryError as error:
        yield UNBROKEN, str(error)


def _steps(state: State | None) -> Mapping[Address, Step]:
    return state.steps if isinstance(state, Saga) else {}


def _time(run: Run) -> Found:
    last = run.facts[0].transition.header.at_ms
    for fact in run.facts:
        at_ms = fact.transition.header.at_ms
        if at_ms < last:
            yield fact.transition, f"decided at {at_ms} ms, after {last} ms"
        last = at_ms


def _after_the_end(run: Run) -> Found:
    for fact in run.facts:
        if isinstance(fact.before, Marker) and not isinstance(fact.transition, (t.SagaStarted, *IGNORED)):
            yield fact.transition, f"{type(fact.transition).__name__} after the saga {fact.before.end.value}"


def _again(run: Run) -> Found:
    first = run.facts[0]
    if not isinstance(first.before, Marker) or first.before.expires_at_ms <= first.transition.header.partition_ms:
        return
    same = first.before.start_message_id == first.transition.header.cause.message_id
    compensated = first.before.end is End.COMPENSATED
    again = run.definition.again
    if same or again is Again.NEVER or (again is Again.AFTER_COMPENSATED and not compensated):
        yield first.transition, f"starts again after it {first.before.end.value}; the definition says {again.value}"


def _timers(run: Run) -> Found:
    for fact in run.facts:
        if isinstance(fact.transition.input, TimerDue) and fact.before is not None:
            due_ms, partition_ms = next_due_ms(fact.before), fact.transition.header.partition_ms
            if due_ms is None or due_ms > partition_ms:
                yield fact.transition, f"fired at {partition_ms} ms of partition time, due at {due_ms} ms"


def _turns_once(run: Run) -> Found:
    for fact in run.facts:
        turned = isinstance(fact.before, Saga) and fact.before.status is Status.COMPENSATING
        if turned and isinstance(fact.transition, t.SagaTurnedBack):
            yield fact.transition, "turned back before"


def _commands(run: Run) -> Iterator[tuple[Fact, str, Address, Direction, int]]:
    for fact in run.facts:
        match fact.transition:
            case t.StepScheduled() | t.CompensationScheduled() as sent:
                header = sent.header
                if header.step is None or header.direction is None or header.attempt is None:
                    raise BrokenHistoryError(f"{header.saga_id}/{header.run}/{header.seq}: a command for no step")
                yield fact, sent.command_id, header.step, header.direction, header.attempt


def _own_ids(run: Run) -> Found:
    seen: set[str] = set()
    for fact, command_id, step, direction, attempt in _commands(run):
        header = fact.transition.header
        derived = ids.command_id(header.saga_id, header.run or 0, step, direction.value, attempt)
        if command_id in seen or command_id != derived:
            yield fact.transition, f"command id {command_id} was used before, or is not {derived}"
        seen.add(command_id)


def _one_in_flight(run: Run) -> Found:
    for fact, _, address, direction, _ in _commands(run):
        step = _steps(fact.before).get(address)
        busy = StepStatus.IN_FLIGHT if direction is Direction.FORWARD else StepStatus.UNDOING
        if step is not None and step.status is busy:
            yield fact.transition, f"{address} is in flight at attempt {step.attempt}/{step.undo_attempt}"


def _in_order(run: Run) -> Found:
    for fact in run.facts:
        header = fact.transition.header
        if not isinstance(fact.transition, t.StepScheduled | t.StepSkipped) or header.step is None:
            continue
        steps = _steps(fact.before)
        for before in run.definition.tasks[header.step].after:
            if before not in steps or steps[before].status not in SETTLED:
                yield fact.transition, f"{header.step} begins before {before} is settled"


def _nothing_new(run: Run) -> Found:
    for fact in run.facts:
        header = fact.transition.header
        turned = isinstance(fact.before, Saga) and fact.before.status is Status.COMPENSATING
        begins = isinstance(fact.transition, t.StepScheduled | t.StepSkipped)
        again = header.step in _steps(fact.before) and header.cause.actor is not None
        if turned and begins and not again:
            yield fact.transition, f"{header.step} is tried in a saga that turned back, and not by an operator"


def _undone(run: Run) -> Iterator[tuple[t.CompensationScheduled, Saga, Address]]:
    for fact in run.facts:
        scheduled, before = fact.transition, fact.before
        if isinstance(scheduled, t.CompensationScheduled) and isinstance(before, Saga) and scheduled.header.step:
            yield scheduled, before, scheduled.header.step


def _possible_effect(run: Run) -> Found:
    for scheduled, before, address in _undone(run):
        step = before.steps.get(address)
        if step is None or not (step.may_have_happened or step.status in _UNDOING):
            yield scheduled, f"{address} cannot have had an effect"
        key = ids.idempotency_key(before.saga_id, before.run, address, Direction.FORWARD.value, 0)
        if scheduled.undoes != key:
            yield scheduled, f"it undoes {scheduled.undoes}, the step's effect has the key {key}"


def _reverse_order(run: Run) -> Found:
    for scheduled, before, address in _undone(run):
        if before.status is not Status.COMPENSATING:
            yield scheduled, f"{address} is undone in a saga that goes forward"
        busy = [other for other, step in before.steps.items() if step.status in _BUSY]
        if busy:
            yield scheduled, f"{address} is undone while {busy} may still take effect"
        for later in descendants(run.definition, address):
            if _to_be_undone(run.definition, later, before.steps.get(later)):
                yield scheduled, f"{address} is undone before {later}, which depends on it"


def _to_be_undone(definition: Definition, address: Address, step: Step | None) -> bool:
    if step is None or definition.tasks[address].compensate is None or step.status is StepStatus.UNDONE:
        return False
    return step.may_have_happened or step.status in _UNDOING


def descendants(definition: Definition, address: Address) -> set[Address]:
    """Every step that depends on this one, directly or not."""
    found: set[Address] = set()
    waiting = list(definition.dependents[address])
    while waiting:
        later = waiting.pop()
        if later not in found:
            found.add(later)
            waiting.extend(definition.dependents[later])
    return found


def _no_way_back(run: Run) -> Found:
    passed = False
    for fact in run.facts:
        back = isinstance(fact.transition, t.SagaTurnedBack | t.CompensationScheduled | t.SagaCompensated)
        if passed and back:
            yield fact.transition, f"{type(fact.transition).__name__} after the pivot has passed"
        settled = isinstance(fact.transition, t.StepSucceeded | t.StepSkipped)
        passed = passed or (settled and fact.transition.header.step in run.definition.pivots)


def _whole(run: Run) -> Found:
    for fact in run.facts:
        before, end = fact.before, fact.transition
        if not isinstance(before, Saga) or not isinstance(end, t.SagaCompleted | t.SagaCompensated):
            continue
        for address in run.definition.tasks:
            step = before.steps.get(address)
            if isinstance(end, t.SagaCompleted):
                if step is None or step.status not in SETTLED:
                    yield end, f"completed, but {address} is {None if step is None else step.status.value}"
            elif step is not None and step.status in _BUSY:
                yield end, f"compensated, but {address} is {step.status.value}"
            elif step is not None and _to_be_undone(run.definition, address, step):
                yield end, f"compensated, but {address} is {step.status.value} and was not undone"


def _ends_or_parks(run: Run) -> Found:
    last, state = run.facts[-1].transition, run.state
    if (
        isinstance(state, Saga)
        and state.parked is None
        and not any(step.status in (StepStatus.PARKED, StepStatus.UNDO_PARKED) for step in state.steps.values())
    ):
        yield last, f"neither ended nor parked: {state.status.value}, {dict(state.steps)}"


RULES: Final[Mapping[str, Rule]] = {
    "decision time never goes back": _time,
    "after an end everything is only recorded": _after_the_end,
    "an ended key runs again only when it may": _again,
    "a timer fires when it is due in partition time": _timers,
    "a saga that turned back does not turn back again": _turns_once,
    "each command has an id of its own, derived": _own_ids,
    "at most one command of a step and direction is in flight": _one_in_flight,
    "a step begins when all that it depends on is settled": _in_order,
    "nothing begins, and only an operator tries again, in a saga that turned back": _nothing_new,
    "nothing is undone that cannot have had an effect": _possible_effect,
    "compensation follows the reversed graph, when nothing is under way any more": _reverse_order,
    "a pivot once passed is never undone": _no_way_back,
    "an end leaves nothing open": _whole,
}
"""What holds at any moment."""

RULES_AT_REST: Final[Mapping[str, Rule]] = {
    "every saga ends or parks": _ends_or_parks,
}
"""What holds besides when nothing is under way."""

BOOKS: Final = "completed = exactly its effects, compensated = none left"


def check_effects(run: Run, standing: Collection[str]) -> Iterator[Violation]:
    """Compare an ended run with the world: `standing` holds the idempotency keys of the effects that stand there.

    Where an operator has settled a step by hand, what stands is theirs to know; such steps are left out.
    """
    if not isinstance(run.state, Marker):
        return
    last, marker = run.facts[-1].transition.header, run.state
    steps = next(_steps(fact.before) for fact in run.facts if isinstance(fact.after, Marker))
    by_hand = {fact.transition.header.step for fact in run.facts if _settled_by_hand(run.definition, fact)}
    for address, task in run.definition.tasks.items():
        key = ids.idempotency_key(marker.saga_id, marker.run, address, Direction.FORWARD.value, 0)
        step = steps.get(address)
        wanted: bool | None = step is not None and step.status is StepStatus.SUCCEEDED
        if marker.end is End.COMPENSATED and task.compensate is None and task.kind is Kind.COMPENSATABLE:
            wanted = None
        elif marker.end is End.COMPENSATED:
            wanted = False
        if wanted is not None and address not in by_hand and (key in standing) is not wanted:
            what = f"{marker.end.value}, but the effect of {address} {'stands' if key in standing else 'is missing'}"
            yield Violation(rule=BOOKS, saga_id=marker.saga_id, run=marker.run, seq=last.seq, what=what)


def _settled_by_hand(definition: Definition, fact: Fact) -> bool:
    """Whether an operator has said how a step ended: skipped it, or that an unknown pivot did not happen."""
    header = fact.transition.header
    if header.cause.actor is None:
        return False
    if isinstance(fact.transition, t.StepGivenUp):
        return header.step in definition.pivots and bool(_steps(fact.before)[header.step].unknown)
    return isinstance(fact.transition, t.StepSucceeded | t.CompensationSucceeded)
