"""The fold refuses what does not follow, and copies what does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.evolve import BrokenHistoryError, evolve, fold
from sagakit.core.state import Saga, Step, StepStatus
from sagakit.core.transitions import Direction, Transition
from tests.histories import record

NOWHERE = Address("nowhere")


def history() -> list[Transition]:
    """A run that was compensated."""
    return record.compensated().history


def changed(fact: Transition, **fields: Any) -> Transition:
    """The same fact with another header."""
    return replace(fact, header=replace(fact.header, **fields))


@pytest.mark.parametrize("length", range(1, 20))
def test_the_fold_of_a_prefix_is_the_state_then(length: int) -> None:
    facts = history()[:length]
    state = fold(facts)
    assert isinstance(state, Saga)
    assert (state.seq, state.at_ms) == (length, facts[-1].header.at_ms)


def test_a_fold_goes_on_from_a_snapshot() -> None:
    facts = history()
    assert fold(facts[7:], fold(facts[:7])) == fold(facts)


MISSING = "a transition is missing or belongs to another run"
UNTOLD = "does not say its version and engine level"
NOT_FIRST = "does not carry its start, or is not the first"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda facts: facts[1:], f"StepScheduled {{id}}/1/2 does not follow nothing: {MISSING}"),
        (lambda facts: [*facts[:3], *facts[4:]], f"StepSucceeded {{id}}/1/5 does not follow 1/3: {MISSING}"),
        (lambda facts: [*facts[:3], facts[2]], f"StepScheduled {{id}}/1/3 does not follow 1/3: {MISSING}"),
        (lambda facts: [facts[0], facts[0]], f"SagaStarted {{id}}/1/1 does not follow 1/1: {MISSING}"),
        (
            lambda facts: [facts[0], changed(facts[1], run=7)],
            f"StepScheduled {{id}}/7/2 does not follow 1/1: {MISSING}",
        ),
        (lambda facts: [*facts, facts[-1]], f"SagaCompensated {{id}}/1/{{last}} does not follow 1/{{last}}: {MISSING}"),
        (lambda facts: [replace(facts[0], input=None)], f"SagaStarted of {{id}} {NOT_FIRST}"),
        (lambda facts: [changed(facts[0], seq=2)], f"SagaStarted of {{id}} {NOT_FIRST}"),
        (lambda facts: [changed(facts[0], run=None)], f"SagaStarted of {{id}} {NOT_FIRST}"),
        (lambda facts: [changed(facts[0], definition=None)], f"SagaStarted of {{id}} {NOT_FIRST}"),
        (lambda facts: [changed(facts[0], version=None)], f"SagaStarted of {{id}} {UNTOLD}"),
        (lambda facts: [changed(facts[0], engine_level=None)], f"SagaStarted of {{id}} {UNTOLD}"),
        (lambda facts: [facts[0], changed(facts[1], step=None)], "a transition about a step names none: {id}/1/2"),
        (
            lambda facts: [facts[0], t.StepSucceeded(header=changed(facts[1], step=NOWHERE).header, kept={})],
            "{id}/1/2 is about a step that was never reached",
        ),
    ],
)
def test_what_does_not_follow_is_refused(broken: Callable[[list[Transition]], list[Transition]], said: str) -> None:
    facts = history()
    with pytest.raises(BrokenHistoryError) as refused:
        fold(broken(facts))
    assert str(refused.value) == said.format(id=facts[0].header.saga_id, last=facts[-1].header.seq)


def test_what_stands_outside_of_every_run_changes_nothing() -> None:
    facts = history()
    state = fold(facts[:5])
    outside = replace(facts[5], header=replace(facts[5].header, run=None, seq=None))
    assert evolve(state, outside) is state


BEFORE = Step(
    status=StepStatus.IN_FLIGHT,
    attempt=2,
    budget_from=1,
    unknown=(1, 2),
    undo_attempt=3,
    undo_budget_from=1,
    due_at_ms=500,
)
FORWARD, BACK = Direction.FORWARD, Direction.COMPENSATION
SAID: dict[str, Any] = {"code": "NO", "message": None}
NO_VALUE: dict[str, Any] = {"field": "x", "expression": "1 / 0", "column": 3, "message": "no"}
SENT: dict[str, Any] = {"command_id": "c", "data": {}, "due_at_ms": 900}
S = StepStatus

# What a transition about a step (direction, attempt, fields) changes of it; the rest stays as it is.
OF_A_STEP: list[tuple[type[Transition], Direction, int | None, dict[str, Any], dict[str, Any]]] = [
    (t.StepScheduled, FORWARD, 3, SENT, {"attempt": 3, "unknown": (1, 2, 3), "due_at_ms": 900}),
    (t.StepSkipped, FORWARD, None, {}, {"status": S.SKIPPED}),
    (t.StepSucceeded, FORWARD, 2, {"kept": {}}, {"status": S.SUCCEEDED, "unknown": (), "due_at_ms": None}),
    (t.StepRejected, FORWARD, 2, {**SAID, "declared": True}, {"status": S.FAILED, "unknown": (1,), "due_at_ms": None}),
    (t.StepRejected, FORWARD, 1, {**SAID, "declared": True}, {"unknown": (2,)}),
    (t.StepFailed, FORWARD, 2, {"kind": "Error", "message": None}, {}),
    (t.StepExpired, FORWARD, 2, {}, {"unknown": (1,)}),
    (t.StepTimedOut, FORWARD, 2, {}, {}),
    (t.StepRetryScheduled, FORWARD, 3, {"due_at_ms": 900}, {"status": S.BACKING_OFF, "due_at_ms": 900}),
    (t.StepGivenUp, FORWARD, 2, {"reason": "r"}, {"status": S.FAILED, "due_at_ms": None}),
    (t.MappingFailed, FORWARD, None, NO_VALUE, {"status": S.FAILED, "due_at_ms": None}),
    (t.MappingFailed, BACK, None, NO_VALUE, {}),
    (t.SendFailed, FORWARD, None, {"target": "command", "reason": "r"}, {}),
    (
        t.CompensationScheduled,
        BACK,
        4,
        {**SENT, "undoes": "k"},
        {"status": S.UNDOING, "undo_attempt": 4, "due_at_ms": 900},
    ),
    (t.CompensationSucceeded, BACK, 3, {}, {"status": S.UNDONE, "due_at_ms": None}),
    (t.CompensationRejected, BACK, 3, SAID, {}),
    (t.CompensationFailed, BACK, 3, {"kind": "Error", "message": None}, {}),
    (t.CompensationExpired, BACK, 3, {}, {}),
    (t.CompensationTimedOut, BACK, 3, {}, {}),
    (t.CompensationRetryScheduled, BACK, 4, {"due_at_ms": 900}, {"status": S.UNDO_BACKING_OFF, "due_at_ms": 900}),
    (t.SagaParked, FORWARD, None, {"reason": "r"}, {"status": S.PARKED, "due_at_ms": None}),
    (t.SagaParked, BACK, None, {"reason": "r"}, {"status": S.UNDO_PARKED, "due_at_ms": None}),
    (t.SagaUnparked, FORWARD, None, {}, {"budget_from": 2, "undo_budget_from": 3}),
    (t.ReplyIgnored, FORWARD, 2, {"reason": "r"}, {}),
]


@pytest.mark.parametrize(
    ("kind", "direction", "attempt", "fields", "changes"), OF_A_STEP, ids=lambda one: getattr(one, "__name__", "")
)
def test_what_a_transition_does_to_its_step(
    kind: type[Transition], direction: Direction, attempt: int | None, fields: dict[str, Any], changes: dict[str, Any]
) -> None:
    address, other = Address("reserve"), Address("charge")
    saga = fold(history()[:1])
    assert isinstance(saga, Saga)
    saga = replace(saga, steps={address: BEFORE, other: BEFORE})
    header = replace(history()[1].header, step=address, direction=direction, attempt=attempt, at_ms=7_000)
    after = evolve(saga, kind(header=header, **fields))
    assert isinstance(after, Saga)
    assert after.steps == {address: replace(BEFORE, **changes), other: BEFORE}
    data = {**saga.data, "reserve": {}} if kind is t.StepSucceeded else saga.data
    assert after == replace(saga, seq=2, at_ms=7_000, steps=after.steps, data=data)
