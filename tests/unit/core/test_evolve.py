"""The fold refuses what does not follow, and copies what does."""

from dataclasses import replace

import pytest

from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.evolve import BrokenHistoryError, evolve, fold
from sagakit.core.state import Saga
from sagakit.core.transitions import Transition
from tests.histories import record


def history() -> list[Transition]:
    """A run that was compensated."""
    return record.compensated().history


@pytest.mark.parametrize("length", range(1, 20))
def test_the_fold_of_a_prefix_is_the_state_then(length: int) -> None:
    state = fold(history()[:length])
    assert isinstance(state, Saga)
    assert state.seq == length


def test_a_fold_goes_on_from_a_snapshot() -> None:
    facts = history()
    assert fold(facts[7:], fold(facts[:7])) == fold(facts)


@pytest.mark.parametrize(
    "broken",
    [
        lambda facts: facts[1:],
        lambda facts: [*facts[:3], *facts[4:]],
        lambda facts: [*facts[:3], facts[2]],
        lambda facts: [facts[0], facts[0]],
        lambda facts: [facts[0], replace(facts[1], header=replace(facts[1].header, run=7))],
        lambda facts: [replace(facts[0], input=None)],
        lambda facts: [replace(facts[0], header=replace(facts[0].header, seq=2))],
        lambda facts: [replace(facts[0], header=replace(facts[0].header, version=None))],
        lambda facts: [facts[0], replace(facts[1], header=replace(facts[1].header, step=None))],
        lambda facts: [
            facts[0],
            t.StepSucceeded(header=replace(facts[1].header, step=Address("nowhere")), kept={}),
        ],
    ],
)
def test_what_does_not_follow_is_refused(broken: object) -> None:
    assert callable(broken)
    with pytest.raises(BrokenHistoryError):
        fold(broken(history()))


def test_what_stands_outside_of_every_run_changes_nothing() -> None:
    facts = history()
    state = fold(facts[:5])
    outside = replace(facts[5], header=replace(facts[5].header, run=None, seq=None))
    assert evolve(state, outside) is state
