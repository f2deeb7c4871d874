"""The replay law as code: the inputs read from a history, decided again, give the same history.

"Same" is meant strictly: every transition with every field, every action that was sent, and the fold as the snapshot. A
change to the engine under which a kept history no longer replays has changed what running sagas do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import TypeAlias

from sagakit.core.actions import Action
from sagakit.core.decide import decide
from sagakit.core.definition import Definition
from sagakit.core.events import Event, Now
from sagakit.core.evolve import BrokenHistoryError, evolve
from sagakit.core.state import Early, KeptSignal, Marker, Saga, State
from sagakit.core.transitions import SagaStarted, SignalKept, Transition
from sagakit.core.turn import ENGINE_LEVEL

DefinitionOf: TypeAlias = Callable[[str, int], Definition]
"""Finds a published definition by name and version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One decision as a history tells it: the input, its two times, its engine level, and the transitions it caused."""

    event: Event
    now: Now
    level: int
    transitions: tuple[Transition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay gave: the state at the end, what would have been sent, and where it differs from the history."""

    state: State | None
    actions: tuple[Action, ...]
    differences: tuple[str, ...]


def recorded(history: Sequence[Transition]) -> Iterator[Recorded]:
    """The decisions of one saga id's history, which stands in log order.

    Raises:
        BrokenHistoryError: when a transition does not point to the first one of its cause.
    """
    group: list[Transition] = []
    for transition in history:
        if transition.input is not None and group:
            yield _decision(group)
            group = []
        group.append(transition)
    if group:
        yield _decision(group)


def _decision(group: Sequence[Transition]) -> Recorded:
    first, event = group[0].header, group[0].input
    if event is None:
        raise BrokenHistoryError(f"{first.saga_id}/{first.run}/{first.seq} has lost the input that caused it")
    for transition in group[1:]:
        cause = transition.header.cause
        if cause.message_id != first.cause.message_id or cause.seq != first.seq:
            header = transition.header
            raise BrokenHistoryError(f"{header.saga_id}/{header.run}/{header.seq} does not point to its cause")
    now = Now(decision_ms=first.at_ms, partition_ms=first.partition_ms)
    level = ENGINE_LEVEL if first.engine_level is None else first.engine_level
    return Recorded(event=event, now=now, level=level, transitions=tuple(group))


def replay(saga_id: str, history: Sequence[Transition], definition_of: DefinitionOf) -> Replayed:
    """Decide the inputs of one saga id's history again.

    The history stands in log order. It may hold several runs, and it need not hold the records outside of them: signals
    that came before their saga are found in the run that took them. A start that began a run is decided without the
    marker of the run before: no history tells whether that had gone already.

    Raises:
        BrokenHistoryError: when transitions are missing.
    """
    run: State | None = None
    outside: Early | None = None
    actions: list[Action] = []
    differences: list[str] = []
    for was in recorded(history):
        first = was.transitions[0].header
        if isinstance(was.transitions[0], SagaStarted):
            before: State | None = _early(saga_id, was.transitions[1:])
        else:
            before = outside if first.run is None else run
        definition = None
        if first.definition is not None and first.version is not None:
            definition = definition_of(first.definition, first.version)
        decision = decide(saga_id, definition, before, was.event, was.now, was.level)
        differences.extend(compare(was.transitions, decision.transitions))
        actions.extend(decision.actions)
        if first.run is None:
            outside = decision.state if isinstance(decision.state, Early) else None
            continue
        run, outside = _folded(run, was.transitions), None
        if run != decision.state:
            differences.append(f"{_name(was.transitions[-1])}: the fold is {run}, decided was {decision.state}")
    return Replayed(state=run or outside, actions=tuple(actions), differences=tuple(differences))


def _early(saga_id: str, others: Sequence[Transition]) -> Early | None:
    """The signals that waited for a start: the start keeps them right after it has begun the run."""
    signals = tuple(
        KeptSignal(name=kept.name, message_id=kept.message_id, payload=kept.payload, expires_at_ms=kept.expires_at_ms)
        for kept in others
        if isinstance(kept, SignalKept)
    )
    return Early(saga_id=saga_id, signals=signals) if signals else None


def _folded(state: State | None, transitions: Sequence[Transition]) -> Saga | Marker | None:
    for transition in transitions:
        state = evolve(state, transition)
    return state if isinstance(state, Saga | Marker) else None


def compare(was: Sequence[Transition], now: Sequence[Transition]) -> Iterator[str]:
    """Where two sequences of transitions differ, in words."""
    for old, new in zip_longest(was, now):
        if old == new:
            continue
        if old is None or new is None:
            kind = "more than the history" if old is None else "missing"
            yield f"{_name(old or new)}: {kind}"
        elif type(old) is not type(new):
            yield f"{_name(old)}: decided was {type(new).__name__}"
        else:
            names = [field.name for field in fields(old) if getattr(old, field.name) != getattr(new, field.name)]
            yield f"{_name(old)}: " + "; ".join(f"{n} was {getattr(old, n)}, is {getattr(new, n)}" for n in names)


def _name(transition: Transition) -> str:
    header = transition.header
    return f"{header.saga_id}/{header.run}/{header.seq} {type(transition).__name__}"
