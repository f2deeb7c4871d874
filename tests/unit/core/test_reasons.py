"""What people read, word for word: it is recorded for good, and operators search for it."""

import pytest

from sagakit.core import ids
from sagakit.core.address import Address
from sagakit.core.definition import Kind, RetryPolicy
from sagakit.core.events import Outcome, Refusal, Refused, Reply
from sagakit.core.transitions import CompensationFailed, Failure, FailureKind, MappingFailed, StepFailed
from sagakit.proving.definitions import WITHOUT_RETRY, Constant, Failing, command, definition, task
from tests.unit.core.story import Story, opened

TWICE = RetryPolicy(attempts=2, backoff_ms=1_000, max_ms=1_000)


def test_why_a_control_is_ignored() -> None:
    story = Story(definition(task("a"), task("b"), task("ship", after=["a", "b"], kind=Kind.PIVOT)))
    story.cancels().says("no saga with this id is known")
    story.starts()
    story.retries().says("the saga is not parked: there is nothing to retry")
    story.retries("a").says("a is not parked: there is nothing to retry")
    story.skips().says("nothing cannot be skipped: no step waits for a person or a retry")
    story.skips("a").says("a cannot be skipped: no step waits for a person or a retry")
    story.cancels()
    story.cancels().says("the saga is already being undone")


def test_why_a_step_has_to_be_named() -> None:
    forward = command("Do", retry=TWICE)
    story = Story(definition(task("a", forward=forward), task("b", forward=forward)))
    story.starts()
    story.timer()
    story.timer()
    story.skips().says("nothing cannot be skipped: name one of a, b")


def test_why_a_control_past_the_pivot_or_the_end_is_ignored() -> None:
    story = Story(definition(task("ship", kind=Kind.PIVOT), task("file", after=["ship"], kind=Kind.RETRIABLE)))
    story.starts()
    story.replies("ship")
    story.cancels().says("the pivot has passed: from here the saga only goes forward")
    story.replies("file")
    story.cancels().says("the saga has ended: completed")


def test_why_a_start_or_a_signal_is_ignored() -> None:
    story = Story(definition(task("a")))
    story.starts(message_id="first")
    story.starts(message_id="first").says("this message has started the saga already")
    story.starts(message_id="second").says("a saga with this key is live")
    story.signals(message_id="signal")
    story.signals(message_id="signal").says("this signal is kept already")
    story.replies("a")
    story.starts(message_id="first").says("this message has started the saga already")
    story.starts(message_id="second").says("the saga has ended (completed), and the definition says again: never")
    story.signals().says("the saga has ended: completed")


@pytest.mark.parametrize(
    ("outcome", "code", "message", "failure"),
    [
        (Outcome.REJECTED, "NO", "full", (FailureKind.REJECTED, "NO", "full")),
        (Outcome.FAILED, "Error", "boom", (FailureKind.FAILED, "Error", "boom")),
        (Outcome.FAILED, None, None, (FailureKind.FAILED, None, None)),
        (Outcome.EXPIRED, None, None, (FailureKind.EXPIRED, None, None)),
        (None, None, None, (FailureKind.TIMED_OUT, None, "no reply within 1000 ms")),
    ],
)
def test_why_a_saga_turned_back(
    outcome: Outcome | None, code: str | None, message: str | None, failure: tuple[FailureKind, str | None, str | None]
) -> None:
    story = Story(definition(task("a", compensate=command("UndoA")), task("b", after=["a"])))
    story.starts()
    story.replies("a")
    told = story.timer() if outcome is None else story.replies("b", outcome, code=code, message=message)
    kind, code, message = failure
    assert story.saga.failure == Failure(step=Address("b"), kind=kind, code=code, message=message)
    for fact in told.decision.transitions:
        if isinstance(fact, StepFailed):
            assert (fact.kind, fact.message) == (code or "", message)


def test_why_a_saga_turned_back_that_lacks_a_value() -> None:
    failing = command("DoB", {"x": Failing()})
    story = Story(definition(task("a", compensate=command("UndoA")), task("b", after=["a"], forward=failing)))
    story.starts()
    story.replies("a")
    wanted = Failure(step=Address("b"), kind=FailureKind.MAPPING, code=None, message="x: division by zero")
    assert story.saga.failure == wanted


def test_why_a_saga_turned_back_over_a_reply_of_another_type() -> None:
    strict = command("DoB", reply="shop.DoneB")
    story = Story(definition(task("a", compensate=command("UndoA")), task("b", after=["a"], forward=strict)))
    story.starts()
    story.replies("a")
    failed, *_ = story.replies("b", payload=opened("shop.Else")).decision.transitions
    assert isinstance(failed, StepFailed)
    assert failed.kind == "WrongReplyType"
    message = "the reply is shop.Else, the definition says shop.DoneB"
    assert story.saga.failure == Failure(
        step=Address("b"), kind=FailureKind.FAILED, code="WrongReplyType", message=message
    )


def test_why_a_condition_is_no_condition() -> None:
    story = Story(definition(task("a", when=Constant(1))))
    (failed,) = [fact for fact in story.starts().decision.transitions if isinstance(fact, MappingFailed)]
    said = (failed.field, failed.expression, failed.column, failed.message)
    assert said == ("when", "when", 0, "gives a value of type int, not true or false")


def undoing(retry: RetryPolicy = WITHOUT_RETRY) -> Story:
    """A step is being undone."""
    story = Story(definition(task("a", compensate=command("UndoA", retry=retry)), task("b", after=["a"])))
    story.starts()
    story.replies("a")
    story.replies("b", Outcome.REJECTED)
    return story


@pytest.mark.parametrize(
    ("outcome", "code", "message", "said"),
    [
        (Outcome.REJECTED, "CLOSED", "too late", ["too late", "the compensation was rejected (CLOSED): too late"]),
        (Outcome.REJECTED, None, None, ["the compensation was rejected"]),
        (
            Outcome.FAILED,
            "Error",
            "boom",
            ["boom", "the attempts to compensate are used up: it failed (Error): boom"],
        ),
        (Outcome.FAILED, None, None, ["the attempts to compensate are used up: it failed"]),
        (Outcome.EXPIRED, None, None, ["the attempts to compensate are used up: expired before the participant began"]),
        (None, None, None, ["the attempts to compensate are used up: no reply in time"]),
    ],
)
def test_why_a_compensation_parked(
    outcome: Outcome | None, code: str | None, message: str | None, said: list[str]
) -> None:
    story = undoing()
    told = (
        story.timer() if outcome is None else story.replies("a", outcome, undo=True, code=code, message=message)
    ).says(*said)
    for fact in told.decision.transitions:
        if isinstance(fact, CompensationFailed):
            assert (fact.kind, fact.message) == (code or "", message)


def test_why_a_compensation_that_cannot_be_sent_parked() -> None:
    story = Story(definition(task("a", compensate=command("UndoA")), task("b", after=["a"])))
    story.starts()
    story.replies("a")
    refusal = Refusal(target=Refused.COMPENSATION, address=Address("a"), reason="too large")
    told = story.replies("b", Outcome.REJECTED, code="NO", message="full", refusals=(refusal,))
    told.says("full", "rejected: full", "too large", "the compensation cannot be sent: too large")


def test_why_a_step_is_given_up() -> None:
    retried = command("DoA", retry=TWICE)
    story = Story(definition(task("a", forward=retried), task("b")))
    story.starts()
    story.replies("a", Outcome.FAILED)
    story.replies("b", Outcome.EXPIRED).says("the attempts are used up", "expired: None", "the saga turned back")
    story = Story(definition(task("a", forward=retried), task("b")))
    story.starts()
    story.replies("b", Outcome.REJECTED)
    story.replies("a", Outcome.EXPIRED).says("the saga turned back")


@pytest.mark.parametrize(
    ("back", "name", "direction", "attempt"),
    [
        (False, "a", "forward", 0),
        (False, "a", "forward", 2),
        (False, "a", "compensation", 0),
        (False, "a", "compensation", 1),
        (False, "b", "forward", 1),
        (False, "c", "forward", 0),
        (True, "a", "forward", 2),
        (True, "a", "forward", 0),
        (True, "b", "compensation", 0),
        (True, "b", "compensation", 1),
    ],
)
def test_a_reply_to_a_command_that_was_never_sent(back: bool, name: str, direction: str, attempt: int) -> None:
    if back:
        story = undoing(TWICE)
        story.replies("a", Outcome.EXPIRED, undo=True)
        story.timer().then("CompensationScheduled a 2")
    else:
        skipped = task("c", when=Constant(False))
        story = Story(definition(task("a", compensate=command("UndoA")), task("b", after=["a"]), skipped))
        story.starts()
    never = ids.command_id(story.saga_id, story.saga.run, name, direction, attempt)
    reply = Reply(cause=story.cause("reply"), command_id=never, outcome=Outcome.SUCCEEDED, payload=None)
    told = story.decides(reply).then("ReplyIgnored").says(f"no command of this run has the id {never}")
    told.and_nothing_else()
