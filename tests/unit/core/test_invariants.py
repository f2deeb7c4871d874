"""Each rule of histories is broken once, on purpose, and says so: a rule that cannot fail proves nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from sagakit.core import ids
from sagakit.core import transitions as t
from sagakit.core.address import Address
from sagakit.core.events import TimerDue
from sagakit.core.transitions import Transition
from sagakit.proving.invariants import (
    BOOKS,
    REPLAYS,
    RULES,
    RULES_AT_REST,
    UNBROKEN,
    check,
    check_at_rest,
    check_effects,
    runs,
)
from sagakit.proving.replay import replay
from tests.histories import record
from tests.histories.orders import published
from tests.unit.core.story import Story, line

Broken = Callable[[], Sequence[Transition]]


def numbered(history: Sequence[Transition]) -> list[Transition]:
    """The same facts, with sequence numbers that have no gap."""
    counted: list[Transition] = []
    seq = 0
    for fact in history:
        seq = 1 if isinstance(fact, t.SagaStarted) else seq + 1
        counted.append(replace(fact, header=replace(fact.header, seq=seq)))
    return counted


def index(history: Sequence[Transition], text: str) -> int:
    """Where a history has this line."""
    return [line(fact) for fact in history].index(text)


def told(story: Callable[[], Story]) -> list[Transition]:
    """A history that breaks no rule."""
    history = story().history
    assert check(story().saga_id, history, published) == []
    return history


def clock_goes_back() -> Sequence[Transition]:
    history = told(record.completed)
    last = history[-1]
    return [*history[:-1], replace(last, header=replace(last.header, at_ms=last.header.at_ms - 1))]


def acts_after_its_end() -> Sequence[Transition]:
    history = told(record.completed)
    return numbered([*history, history[index(history, "StepSucceeded ship 1")]])


def runs_again_though_it_completed() -> Sequence[Transition]:
    history = told(record.completed)
    again = [replace(fact, header=replace(fact.header, run=99)) for fact in history]
    return [*history, *again]


def timer_comes_early() -> Sequence[Transition]:
    history = told(record.completed)
    at = next(i for i, fact in enumerate(history) if isinstance(fact.input, TimerDue))
    history[at] = replace(history[at], header=replace(history[at].header, partition_ms=0))
    return history


def turns_back_twice() -> Sequence[Transition]:
    history = told(record.compensated)
    at = index(history, "SagaTurnedBack ship")
    return numbered([*history[: at + 1], *history[at:]])


def uses_a_command_id_twice() -> Sequence[Transition]:
    history = told(record.parked_undoing)
    first: Any = history[index(history, "CompensationScheduled charge 1")]
    at = index(history, "CompensationScheduled charge 2")
    second: Any = history[at]
    history[at] = replace(second, command_id=first.command_id)
    return history


def sends_beside_a_command_in_flight() -> Sequence[Transition]:
    history = told(record.completed)
    del history[index(history, "StepRetryScheduled charge 2")]
    return numbered(history)


def begins_too_early() -> Sequence[Transition]:
    history = told(record.completed)
    at, to = index(history, "StepScheduled charge 1"), index(history, "StepSucceeded reserve 1")
    return numbered([*history[:to], history[at], history[to], *history[at + 1 :]])


def begins_after_turning_back() -> Sequence[Transition]:
    history = told(record.cancelled)
    scheduled = told(record.completed)[index(told(record.completed), "StepScheduled charge 1")]
    at = index(history, "StepSucceeded reserve 1")
    return numbered([*history[: at + 1], scheduled])


def undoes_what_was_never_done() -> Sequence[Transition]:
    history = told(record.parked_undoing)
    at = index(history, "CompensationScheduled charge 1")
    wrap = replace(history[at], header=replace(history[at].header, step=Address("wrap")))
    return numbered([*history[:at], wrap])


def undoes_in_the_wrong_order() -> Sequence[Transition]:
    history = told(record.compensated)
    at = index(history, "CompensationScheduled charge 1")
    return numbered([*history[:at], history[index(history, "CompensationScheduled reserve 1")], history[at]])


def undoes_beside_a_step_in_flight() -> Sequence[Transition]:
    history = told(record.cancelled)
    at = index(history, "StepSucceeded reserve 1")
    return numbered([*history[:at], history[index(history, "CompensationScheduled wrap 1")]])


def turns_back_past_the_pivot() -> Sequence[Transition]:
    history = told(record.completed)
    turned = told(record.compensated)[index(told(record.compensated), "SagaTurnedBack ship")]
    return numbered([*history[: index(history, "StepSucceeded ship 1") + 1], turned])


def ends_with_a_step_open() -> Sequence[Transition]:
    history = told(record.completed)
    return numbered([*history[: index(history, "StepSucceeded mark 1")], history[-1]])


def ends_with_something_not_undone() -> Sequence[Transition]:
    history = told(record.compensated)
    return numbered([*history[: index(history, "CompensationSucceeded reserve 1")], history[-1]])


BROKEN: dict[str, tuple[Broken, ...]] = {
    "decision time never goes back": (clock_goes_back,),
    "after an end everything is only recorded": (acts_after_its_end,),
    "an ended key runs again only when it may": (runs_again_though_it_completed,),
    "a timer fires when it is due in partition time": (timer_comes_early,),
    "a saga that turned back does not turn back again": (turns_back_twice,),
    "each command has an id of its own, derived": (uses_a_command_id_twice,),
    "at most one command of a step and direction is in flight": (sends_beside_a_command_in_flight,),
    "a step begins when all that it depends on is settled": (begins_too_early,),
    "nothing begins, and only an operator tries again, in a saga that turned back": (begins_after_turning_back,),
    "nothing is undone that cannot have had an effect": (undoes_what_was_never_done,),
    "compensation follows the reversed graph, when nothing is under way any more": (
        undoes_in_the_wrong_order,
        undoes_beside_a_step_in_flight,
    ),
    "a pivot once passed is never undone": (turns_back_past_the_pivot,),
    "an end leaves nothing open": (ends_with_a_step_open, ends_with_something_not_undone),
}


@pytest.mark.parametrize(
    ("rule", "history"), [(rule, history) for rule, histories in BROKEN.items() for history in histories]
)
def test_a_broken_rule_says_so(rule: str, history: Broken) -> None:
    found = [what for run in runs(history(), published) for _, what in RULES[rule](run)]
    assert found, f"nothing was found against: {rule}"


def test_every_rule_is_broken_once() -> None:
    assert BROKEN.keys() == RULES.keys()


def test_a_gap_and_a_change_are_found() -> None:
    history = told(record.completed)
    saga_id = history[0].header.saga_id
    assert {found.rule for found in check(saga_id, [*history[:4], *history[5:]], published)} == {UNBROKEN}
    scheduled: Any = history[1]
    changed = replace(scheduled, due_at_ms=7)
    (found,) = check(saga_id, [history[0], changed, *history[2:3]], published)[:1]
    assert found.rule == REPLAYS
    assert "due_at_ms was 7" in found.what
    assert str(found).startswith(f"{REPLAYS}: {saga_id}/")


def test_what_is_missing_or_too_much_is_found() -> None:
    history = told(record.completed)
    saga_id = history[0].header.saga_id
    (missing, _) = replay(saga_id, history[:1], published).differences[:2]
    assert "StepScheduled: more than the history" in missing
    extra = replace(history[-1], header=replace(history[-1].header, cause=history[-1].header.cause))
    assert any("missing" in text for text in replay(saga_id, numbered([*history, extra]), published).differences)


def test_a_saga_that_stands_still_is_found_at_rest() -> None:
    history = told(record.completed)
    saga_id = history[0].header.saga_id
    (rule,) = RULES_AT_REST
    assert [found.rule for found in check_at_rest(saga_id, history[:3], published)] == [rule]
    assert check_at_rest(saga_id, history, published) == []
    assert check_at_rest(saga_id, told(record.parked_undoing), published) == []


def effects(*names: str) -> set[str]:
    """The keys of the effects of these steps, in the first run."""
    saga_id = record.completed().saga_id
    return {ids.idempotency_key(saga_id, 1, name, "forward", 0) for name in names}


@pytest.mark.parametrize(
    ("story", "standing", "wrong"),
    [
        (record.completed, {"reserve", "wrap", "charge", "ship", "mark"}, 0),
        (record.completed, {"reserve", "wrap", "charge", "ship"}, 1),
        (record.completed, set(), 5),
        (record.compensated, set(), 0),
        (record.compensated, {"charge", "ship"}, 2),
        # What a person has settled by hand is theirs to know.
        (record.pivot_did_not_happen, {"ship"}, 0),
        (record.cancelled_too_late, {"reserve", "charge", "ship"}, 0),
        # Not ended: nothing is promised yet.
        (record.parked_undoing, {"reserve"}, 0),
    ],
)
def test_the_books_are_compared(story: Callable[[], Story], standing: set[str], wrong: int) -> None:
    (run,) = runs(told(story), published)
    found = list(check_effects(run, effects(*standing)))
    assert [violation.rule for violation in found] == [BOOKS] * wrong
