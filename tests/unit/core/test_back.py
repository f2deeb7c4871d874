"""Back: compensation along the reversed graph, what may have happened, and parks on the way."""

import pytest

from sagakit.core import ids
from sagakit.core.actions import SendCommand
from sagakit.core.definition import RetryPolicy
from sagakit.core.events import Outcome
from sagakit.core.state import End, StepStatus
from sagakit.core.transitions import CompensationScheduled, FailureKind
from sagakit.proving.definitions import Failing, Path, command, definition, publication, task
from tests.unit.core.story import Story, opened

TWICE = RetryPolicy(attempts=2, backoff_ms=1_000, max_ms=1_000)


def test_a_chain_is_undone_in_exact_reverse_order() -> None:
    story = Story(
        definition(
            task("a", compensate=command("UndoA")),
            task("b", after=["a"], compensate=command("UndoB")),
            task("c", after=["b"], compensate=command("UndoC")),
            compensated=publication("OrderRejected", {"why": Path("failure.code"), "where": Path("failure.step")}),
        )
    )
    story.starts()
    story.replies("a")
    story.replies("b")
    told = story.replies("c", Outcome.REJECTED, code="NO")
    told.then("StepRejected c 1", "SagaTurnedBack c", "CompensationScheduled b 1").sends("b compensation 1")
    told.and_nothing_else()
    told = story.replies("b", undo=True).then("CompensationSucceeded b 1", "CompensationScheduled a 1")
    told.sends("a compensation 1").and_nothing_else()
    told = story.replies("a", undo=True).then("CompensationSucceeded a 1", "SagaCompensated")
    told.sends("publish shop.OrderRejected").and_nothing_else()
    assert story.actions[-1].data == {"why": "NO", "where": "c"}  # type: ignore[union-attr]
    assert story.marker.end is End.COMPENSATED


def test_a_compensation_names_the_effect_that_it_undoes() -> None:
    story = Story(definition(task("a", compensate=command("UndoA", service="bank")), task("b", after=["a"])))
    story.starts()
    story.replies("a")
    run = story.saga.run
    (*_, scheduled) = story.replies("b", Outcome.REJECTED).decision.transitions
    assert isinstance(scheduled, CompensationScheduled)
    sent = story.actions[-1]
    assert isinstance(sent, SendCommand)
    forward = ids.idempotency_key(story.saga_id, run, "a", "forward", 0)
    assert (sent.undoes, scheduled.undoes) == (forward, forward)
    assert sent.idempotency_key == ids.idempotency_key(story.saga_id, run, "a", "compensation", 0)
    assert sent.command_id == ids.command_id(story.saga_id, run, "a", "compensation", 1)
    assert sent.service == "bank"


def test_independent_branches_are_undone_side_by_side_and_a_fork_after_all_of_them() -> None:
    story = Story(
        definition(
            task("root", compensate=command("UndoRoot")),
            task("left", after=["root"], compensate=command("UndoLeft")),
            task("right", after=["root"], compensate=command("UndoRight")),
            task("join", after=["left", "right"]),
        )
    )
    story.starts()
    for name in ("root", "left", "right"):
        story.replies(name)
    told = story.replies("join", Outcome.REJECTED).then("StepRejected join 1", "SagaTurnedBack join")
    told.then("CompensationScheduled right 1", "CompensationScheduled left 1")
    told.sends("right compensation 1", "left compensation 1").and_nothing_else()
    story.replies("right", undo=True).then("CompensationSucceeded right 1").and_nothing_else()
    told = story.replies("left", undo=True).then("CompensationSucceeded left 1", "CompensationScheduled root 1")
    told.sends("root compensation 1").and_nothing_else()


def test_the_order_holds_through_steps_that_have_nothing_to_undo() -> None:
    """a ← b (no compensation) ← c (skipped) ← d: a waits for d although no compensation stands between them."""
    story = Story(
        definition(
            task("a", compensate=command("UndoA")),
            task("b", after=["a"]),
            task("c", after=["b"], when=Path("start.gift")),
            task("d", after=["c"], compensate=command("UndoD")),
            task("e", after=["d"]),
            start_keep=["gift"],
        )
    )
    story.starts({"gift": False})
    for name in "abd":
        story.replies(name)
    told = story.replies("e", Outcome.REJECTED).then(
        "StepRejected e 1", "SagaTurnedBack e", "CompensationScheduled d 1"
    )
    told.sends("d compensation 1").and_nothing_else()
    told = story.replies("d", undo=True).then("CompensationSucceeded d 1", "CompensationScheduled a 1")
    told.sends("a compensation 1").and_nothing_else()


def test_what_is_in_flight_is_awaited_and_then_undone() -> None:
    story = Story(
        definition(
            task("a", compensate=command("UndoA")), task("b", compensate=command("UndoB")), task("c", after=["a", "b"])
        )
    )
    story.starts()
    told = story.replies("a", Outcome.REJECTED).then("StepRejected a 1", "SagaTurnedBack a").and_nothing_else()
    told = story.replies("b").then("StepSucceeded b 1", "CompensationScheduled b 1").sends("b compensation 1")
    told.and_nothing_else()
    story.replies("b", undo=True).then("CompensationSucceeded b 1", "SagaCompensated").and_nothing_else()


def test_what_is_in_flight_and_never_answers_is_unknown_and_undone_too() -> None:
    story = Story(definition(task("a"), task("b", compensate=command("UndoB"))))
    story.starts()
    story.replies("a", Outcome.REJECTED)
    told = story.timer().then("StepTimedOut b 1", "StepGivenUp b 1", "CompensationScheduled b 1")
    told.sends("b compensation 1").because("the saga turned back").and_nothing_else()
    late = story.replies("b").then("ReplyIgnored b 1").because("succeeded, but the step is undoing")
    late.and_nothing_else()
    story.replies("b", undo=True).then("CompensationSucceeded b 1", "SagaCompensated").and_nothing_else()


def test_a_branch_that_waits_for_its_next_attempt_is_given_up_when_another_turns_the_saga_back() -> None:
    story = Story(definition(task("a"), task("b", forward=command("DoB", retry=TWICE), compensate=command("UndoB"))))
    story.starts()
    story.replies("b", Outcome.FAILED, code="Error")
    told = story.replies("a", Outcome.REJECTED).then("StepRejected a 1", "SagaTurnedBack a", "StepGivenUp b 1")
    told.then("CompensationScheduled b 1").sends("b compensation 1").and_nothing_else()


def test_a_branch_in_flight_is_not_retried_once_the_saga_has_turned_back() -> None:
    story = Story(definition(task("a"), task("b", forward=command("DoB", retry=TWICE))))
    story.starts()
    story.replies("a", Outcome.REJECTED)
    told = story.replies("b", Outcome.FAILED).then("StepFailed b 1", "StepGivenUp b 1", "SagaCompensated")
    told.because("the saga turned back").and_nothing_else()


@pytest.mark.parametrize(
    ("outcome", "undone"), [(Outcome.REJECTED, False), (Outcome.EXPIRED, False), (Outcome.FAILED, True)]
)
def test_a_failure_may_have_happened_a_rejection_and_an_expiry_have_not(outcome: Outcome, undone: bool) -> None:
    story = Story(definition(task("a", compensate=command("UndoA"))))
    story.starts()
    told = story.replies("a", outcome)
    assert told.lines[-1] == ("CompensationScheduled a 1" if undone else "SagaCompensated")


def test_rule_13_a_rejection_settles_only_its_own_attempt() -> None:
    """Rule 13: the first attempt is unknown, the second is rejected because of it."""
    story = Story(definition(task("a", forward=command("DoA", retry=TWICE), compensate=command("UndoA"))))
    story.starts()
    story.timer().then("StepTimedOut a 1", "StepRetryScheduled a 2").and_nothing_else()
    story.timer().then("StepScheduled a 2").sends("a forward 2").and_nothing_else()
    told = story.replies("a", Outcome.REJECTED, code="ALREADY_RESERVED")
    told.then("StepRejected a 2", "SagaTurnedBack a", "CompensationScheduled a 1").sends("a compensation 1")
    told.and_nothing_else()
    assert story.step("a").unknown == (1,)


def test_rule_13_an_older_attempts_success_counts() -> None:
    """Rule 13: a success of any attempt settles the step."""
    story = Story(definition(task("a", forward=command("DoA", retry=TWICE))))
    story.starts()
    story.timer()
    story.timer()
    story.replies("a", attempt=1).then("StepSucceeded a 1", "SagaCompleted").and_nothing_else()


def test_an_older_attempts_rejection_leaves_the_newer_one_in_flight() -> None:
    """Rule 13: a rejection settles only its own attempt."""
    story = Story(definition(task("a", forward=command("DoA", retry=TWICE), compensate=command("UndoA"))))
    story.starts()
    story.timer()
    story.timer()
    story.replies("a", Outcome.REJECTED, attempt=1).then("StepRejected a 1").and_nothing_else()
    assert (story.step("a").status, story.step("a").unknown) == (StepStatus.IN_FLIGHT, (2,))
    told = story.replies("a", Outcome.REJECTED, attempt=1).then("ReplyIgnored a 1").and_nothing_else()
    told = story.replies("a", Outcome.EXPIRED, attempt=2).then("StepExpired a 2", "StepGivenUp a 2")
    told.then("SagaTurnedBack a", "SagaCompensated").and_nothing_else()


def test_a_compensation_is_retried_then_parks_and_never_ends_the_saga() -> None:
    story = Story(definition(task("a", compensate=command("UndoA", retry=TWICE)), task("b", after=["a"])))
    story.starts()
    story.replies("a")
    story.replies("b", Outcome.REJECTED)
    told = story.replies("a", Outcome.EXPIRED, undo=True)
    told.then("CompensationExpired a 1", "CompensationRetryScheduled a 2").and_nothing_else()
    story.timer().then("CompensationScheduled a 2").sends("a compensation 2").and_nothing_else()
    story.timer().then("CompensationTimedOut a 2", "SagaParked a").because("used up").and_nothing_else()
    assert story.step("a").status is StepStatus.UNDO_PARKED
    told = story.retries().then("SagaUnparked a", "CompensationScheduled a 3").sends("a compensation 3")
    told.and_nothing_else()
    told = story.replies("a", Outcome.FAILED, undo=True, code="Error", message="boom")
    told.then("CompensationFailed a 3", "CompensationRetryScheduled a 4").and_nothing_else()
    told = story.replies("a", undo=True, attempt=1).then("CompensationSucceeded a 1", "SagaCompensated")
    told.and_nothing_else()


def test_a_compensation_that_is_refused_parks_beside_branches_that_go_on() -> None:
    story = Story(
        definition(
            task("a", compensate=command("UndoA")),
            task("b", compensate=command("UndoB")),
            task("c", after=["a", "b"]),
        )
    )
    story.starts()
    story.replies("a")
    story.replies("b")
    story.replies("c", Outcome.REJECTED)
    told = story.replies("a", Outcome.REJECTED, undo=True, code="CLOSED", message=None)
    told.then("CompensationRejected a 1", "SagaParked a").because("rejected (CLOSED)").and_nothing_else()
    assert "None" not in getattr(told.decision.transitions[-1], "reason", "")
    story.replies("b", undo=True).then("CompensationSucceeded b 1").and_nothing_else()
    story.skips("a").then("CompensationSucceeded a 1", "SagaCompensated").and_nothing_else()


def test_a_compensation_without_a_value_parks_and_can_be_skipped() -> None:
    story = Story(definition(task("a", compensate=command("UndoA", {"x": Failing()})), task("b", after=["a"])))
    story.starts()
    story.replies("a")
    told = story.replies("b", Outcome.REJECTED).then("StepRejected b 1", "SagaTurnedBack b", "MappingFailed a")
    told.then("SagaParked a").because("x: division by zero").and_nothing_else()
    assert story.step("a").status is StepStatus.UNDO_PARKED
    story.retries("a").then("SagaUnparked a", "MappingFailed a", "SagaParked a").and_nothing_else()
    told = story.skips("a").then("CompensationSucceeded a", "SagaCompensated").and_nothing_else()
    assert told.decision.transitions[0].header.attempt is None, "no command was ever sent: attempts count from 1"


def test_the_event_of_a_compensated_end_without_a_value_parks() -> None:
    story = Story(definition(task("a"), compensated=publication("OrderRejected", {"x": Failing()})))
    story.starts()
    told = story.replies("a", Outcome.REJECTED).then("StepRejected a 1", "SagaTurnedBack a", "MappingFailed")
    told.then("SagaParked").and_nothing_else()
    assert story.saga.failure is not None
    assert story.saga.failure.kind is FailureKind.REJECTED
    story.cancels().then("ControlIgnored").because("being undone, and waits for a person: retry it").and_nothing_else()
    told = story.skips(payload=opened("shop.OrderRejected", {"x": 1})).then("SagaUnparked", "SagaCompensated")
    told.sends("publish shop.OrderRejected").and_nothing_else()
