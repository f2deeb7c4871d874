"""The fold refuses what does not follow, and copies what does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.evolve import BrokenHistoryError, evolve, fold
from sagakit.core.state import Saga
from sagakit.core.transitions import Transition
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
    state = fold(history()[:length])
    assert isinstance(state, Saga)
    assert state.seq == length


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
