"""The pivot: before it there is a way back, after it there is none, and at it a person decides what is unknown."""

import pytest

from sagakit.core.definition import Definition, Kind, RetryPolicy
from sagakit.core.events import Outcome
from sagakit.core.state import Status, StepStatus
from sagakit.proving.definitions import Failing, Path, command, definition, task
from tests.unit.core.story import Story, opened

TWICE = RetryPolicy(attempts=2, backoff_ms=1_000, max_ms=1_000)


def order(deadline_ms: int | None = None) -> Definition:
    """Reserve, then ship (the pivot), then archive (retriable)."""
    return definition(
        task("reserve", compensate=command("Release")),
        task("ship", after=["reserve"], kind=Kind.PIVOT, forward=command("Ship", retry=TWICE)),
        task("archive", after=["ship"], kind=Kind.RETRIABLE, forward=command("Archive", retry=TWICE)),
        deadline_ms=deadline_ms,
    )


def at_the_pivot(deadline_ms: int | None = None) -> Story:
    """The pivot's first command is under way."""
    story = Story(order(deadline_ms))
    story.starts()
    story.replies("reserve").then("StepSucceeded reserve 1", "StepScheduled ship 1").sends("ship forward 1")
    return story


def unknown() -> Story:
    """Both attempts at the pivot have timed out: it is parked."""
    story = at_the_pivot()
    story.timer().then("StepTimedOut ship 1", "StepRetryScheduled ship 2").and_nothing_else()
    story.timer().then("StepScheduled ship 2").sends("ship forward 2").and_nothing_else()
    told = story.timer().then("StepTimedOut ship 2", "StepGivenUp ship 2", "SagaParked ship")
    told.because("its outcome is unknown").and_nothing_else()
    return story


def test_a_pivot_that_is_rejected_turns_back() -> None:
    told = at_the_pivot().replies("ship", Outcome.REJECTED)
    told.then("StepRejected ship 1", "SagaTurnedBack ship", "CompensationScheduled reserve 1")
    told.sends("reserve compensation 1").and_nothing_else()


def test_a_pivot_rejected_after_an_attempt_that_is_unknown_parks() -> None:
    """Rule 13: a rejection settles only its own attempt."""
    story = at_the_pivot()
    story.timer()
    story.timer()
    told = story.replies("ship", Outcome.REJECTED, code="NO").then("StepRejected ship 2", "SagaParked ship")
    told.because("rejected (NO); its outcome is unknown").and_nothing_else()
    told = story.replies("ship", Outcome.REJECTED, attempt=1)
    told.then("StepRejected ship 1", "SagaTurnedBack ship", "CompensationScheduled reserve 1")
    told.sends("reserve compensation 1").and_nothing_else()


def test_a_late_success_of_a_parked_pivot_goes_on() -> None:
    story = unknown()
    story.cancels().then("ControlIgnored").because("ship may have happened: find out").and_nothing_else()
    told = story.replies("ship", attempt=1).then("StepSucceeded ship 1", "StepScheduled archive 1")
    told.sends("archive forward 1").and_nothing_else()


def test_an_unknown_pivot_can_be_retried_with_a_new_budget() -> None:
    story = unknown()
    story.retries("ship").then("SagaUnparked ship", "StepScheduled ship 3").sends("ship forward 3").and_nothing_else()
    story.replies("ship", Outcome.FAILED).then("StepFailed ship 3", "StepRetryScheduled ship 4").and_nothing_else()
    story.replies("ship", attempt=3).then("StepSucceeded ship 3", "StepScheduled archive 1").sends("archive forward 1")


def test_an_unknown_pivot_can_be_skipped_that_is_said_to_have_happened() -> None:
    story = unknown()
    story.skips("ship").then("StepSucceeded ship 2", "StepScheduled archive 1").sends("archive forward 1")
    story.cancels().then("ControlIgnored").because("the pivot has passed").and_nothing_else()


def test_an_unknown_pivot_cancelled_by_name_is_said_not_to_have_happened() -> None:
    story = unknown()
    told = story.cancels("ship").then("CancelRequested ship", "StepGivenUp ship 2", "SagaTurnedBack")
    told.then("CompensationScheduled reserve 1").sends("reserve compensation 1").because("it did not happen")
    told.and_nothing_else()
    story.replies("ship", attempt=2).then("ReplyIgnored ship 2").and_nothing_else()
    story.replies("reserve", undo=True).then("CompensationSucceeded reserve 1", "SagaCompensated").and_nothing_else()


@pytest.mark.parametrize("after_deadline", [True, False])
def test_a_cancel_or_deadline_waits_for_the_pivot_and_is_abandoned_if_it_succeeds(after_deadline: bool) -> None:
    story = at_the_pivot(deadline_ms=500 if after_deadline else None)
    if after_deadline:
        story.timer().then("DeadlinePassed", "SagaTurnedBack").because("deadline passed").and_nothing_else()
    else:
        story.cancels().then("CancelRequested", "SagaTurnedBack").because("the customer called").and_nothing_else()
    told = story.replies("ship").then("StepSucceeded ship 1", "TurnBackAbandoned ship", "StepScheduled archive 1")
    told.sends("archive forward 1").and_nothing_else()
    assert (story.saga.status, story.saga.failure) == (Status.RUNNING, None)


def test_what_became_ready_while_the_saga_was_turned_back_starts_when_that_is_abandoned() -> None:
    story = Story(definition(task("ship", kind=Kind.PIVOT), task("pack"), task("label", after=["pack"])))
    story.starts()
    story.cancels()
    story.replies("pack").then("StepSucceeded pack 1").and_nothing_else()
    told = story.replies("ship").then("StepSucceeded ship 1", "TurnBackAbandoned ship", "StepScheduled label 1")
    told.sends("label forward 1").says("the pivot succeeded: there is no way back past it").and_nothing_else()


def test_a_retriable_step_parks_also_where_no_pivot_stands_before_it() -> None:
    story = Story(definition(task("archive", kind=Kind.RETRIABLE)))
    story.starts()
    story.replies("archive", Outcome.REJECTED).then("StepRejected archive 1", "SagaParked archive").and_nothing_else()


def test_a_pivot_in_flight_during_a_cancel_that_had_no_effect_is_given_up() -> None:
    story = at_the_pivot()
    story.cancels()
    told = story.replies("ship", Outcome.EXPIRED).then("StepExpired ship 1", "StepGivenUp ship 1")
    told.then("CompensationScheduled reserve 1").sends("reserve compensation 1").and_nothing_else()


def test_a_pivot_in_flight_during_a_cancel_that_stays_unknown_parks_and_then_each_way_is_open() -> None:
    def parked() -> Story:
        story = at_the_pivot()
        story.cancels()
        told = story.timer().then("StepTimedOut ship 1", "StepGivenUp ship 1", "SagaParked ship")
        told.because("its outcome is unknown").and_nothing_else()
        return story

    told = parked().retries().then("SagaUnparked ship", "StepScheduled ship 2").sends("ship forward 2")
    told.and_nothing_else()
    told = (
        parked().cancels("ship").then("CancelRequested ship", "StepGivenUp ship 1", "CompensationScheduled reserve 1")
    )
    told.sends("reserve compensation 1").and_nothing_else()
    told = parked().skips("ship").then("StepSucceeded ship 1", "TurnBackAbandoned ship", "StepScheduled archive 1")
    told.sends("archive forward 1").and_nothing_else()
    told = parked().replies("ship", Outcome.REJECTED).then("StepRejected ship 1", "CompensationScheduled reserve 1")
    told.sends("reserve compensation 1").and_nothing_else()
    # A late expiry, too, says that there was no effect: nobody has to be asked any more.
    told = parked().replies("ship", Outcome.EXPIRED).then("StepExpired ship 1", "StepGivenUp ship 1")
    told.then("CompensationScheduled reserve 1").sends("reserve compensation 1").and_nothing_else()


def test_a_pivot_that_waits_for_its_next_attempt_parks_if_unknown_when_the_saga_turns_back() -> None:
    story = at_the_pivot()
    story.timer()
    assert story.step("ship").status is StepStatus.BACKING_OFF
    told = story.cancels().then("CancelRequested", "SagaTurnedBack", "SagaParked ship")
    told.says("cancelled: the customer called", "the saga turned back while the pivot's outcome is unknown")
    told.and_nothing_else()
    assert (story.step("ship").status, story.step("ship").due_at_ms) == (StepStatus.PARKED, None)


def test_a_pivot_that_waits_for_its_next_attempt_is_given_up_if_it_cannot_have_happened() -> None:
    story = at_the_pivot()
    story.replies("ship", Outcome.EXPIRED).then("StepExpired ship 1", "StepRetryScheduled ship 2").and_nothing_else()
    told = story.cancels().then("CancelRequested", "SagaTurnedBack", "StepGivenUp ship 1")
    told.then("CompensationScheduled reserve 1").sends("reserve compensation 1").and_nothing_else()


def test_a_deadline_beside_an_unknown_pivot_is_only_recorded() -> None:
    story = at_the_pivot(deadline_ms=60_000)
    for _ in range(3):
        story.timer()
    story.timer().then("DeadlinePassed").and_nothing_else()
    assert (story.saga.status, story.saga.deadline_at_ms) == (Status.RUNNING, None)


def test_past_the_pivot_there_are_only_retries_and_then_a_person() -> None:
    story = at_the_pivot(deadline_ms=1_500)
    story.replies("ship")
    told = story.replies("archive", Outcome.REJECTED, code="NO", message="full")
    told.then("StepRejected archive 1", "SagaParked archive")
    told.because("rejected (NO): full; there is no way back past the pivot").and_nothing_else()
    story.timer().then("DeadlinePassed").and_nothing_else()
    story.cancels().then("ControlIgnored").because("only goes forward").and_nothing_else()
    story.retries().then("SagaUnparked archive", "StepScheduled archive 2").sends("archive forward 2")
    story.timer().then("StepTimedOut archive 2", "StepRetryScheduled archive 3").and_nothing_else()
    story.timer().then("StepScheduled archive 3").sends("archive forward 3").and_nothing_else()
    told = story.timer().then("StepTimedOut archive 3", "StepGivenUp archive 3", "SagaParked archive")
    told.and_nothing_else()
    story.replies("archive", Outcome.EXPIRED, attempt=3).then("StepExpired archive 3").and_nothing_else()
    story.skips("archive", opened("shop.Any")).then("ControlIgnored archive").and_nothing_else()
    story.skips("archive").then("StepSucceeded archive 3", "SagaCompleted").and_nothing_else()


def test_a_skipped_pivot_counts_as_passed() -> None:
    story = Story(
        definition(
            task("reserve", compensate=command("Release")),
            task("ship", after=["reserve"], kind=Kind.PIVOT, when=Path("start.ship")),
            task("archive", after=["ship"], kind=Kind.RETRIABLE),
            start_keep=["ship"],
        )
    )
    story.starts({"ship": False})
    told = story.replies("reserve").then("StepSucceeded reserve 1", "StepSkipped ship", "StepScheduled archive 1")
    told.sends("archive forward 1").and_nothing_else()
    story.cancels().then("ControlIgnored").because("the pivot has passed").and_nothing_else()


def test_a_pivot_or_a_step_past_it_whose_command_has_no_value() -> None:
    broken = command("Do", {"x": Failing()})
    story = Story(definition(task("ship", kind=Kind.PIVOT, forward=broken)))
    told = story.starts().then("SagaStarted", "MappingFailed ship", "SagaTurnedBack ship", "SagaCompensated")
    told.and_nothing_else()
    story = Story(
        definition(task("ship", kind=Kind.PIVOT), task("archive", after=["ship"], kind=Kind.RETRIABLE, forward=broken))
    )
    story.starts()
    told = story.replies("ship").then("StepSucceeded ship 1", "MappingFailed archive", "SagaParked archive")
    told.because("there is no way back").and_nothing_else()
    story.retries().then("SagaUnparked archive", "MappingFailed archive", "SagaParked archive").and_nothing_else()
    skipped = story.skips().then("StepSucceeded archive", "SagaCompleted").and_nothing_else()
    assert skipped.decision.transitions[0].header.attempt is None
