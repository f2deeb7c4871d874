"""What operators ask, what the clock brings, what comes early, and what cannot be sent."""

import pytest

from sagakit.core.address import Address
from sagakit.core.definition import Again, Kind, RetryPolicy
from sagakit.core.events import (
    Cause,
    Control,
    Event,
    Outcome,
    Refusal,
    Refused,
    Reply,
    ReplyTo,
    Signal,
    Start,
    TimerDue,
    Undecodable,
    Verb,
)
from sagakit.core.schedule import next_due_ms
from sagakit.core.state import Early, KeptSignal, Status, StepStatus
from sagakit.core.transitions import RecordDeadLettered, SignalExpired
from sagakit.proving.definitions import Constant, Failing, Path, command, definition, publication, task
from tests.unit.core.story import Story, opened

TWICE = RetryPolicy(attempts=2, backoff_ms=1_000, max_ms=1_000)
PAIR = definition(
    task("a", forward=command("DoA", retry=TWICE), compensate=command("UndoA")),
    task("b", forward=command("DoB", retry=TWICE), compensate=command("UndoB")),
)


def refused(target: Refused, name: str | None = None) -> tuple[Refusal, ...]:
    """The refusal of one record."""
    return (Refusal(target=target, address=None if name is None else Address(name), reason="too large"),)


def too_large(story: Story) -> None:
    """A signal comes that cannot be recorded."""
    cause = story.cause("signal")
    signal = Signal(cause=cause, refusals=refused(Refused.INPUT), name="approve", payload=None, keep_ms=5)
    told = story.decides(signal).then("SendFailed", "SagaParked").and_nothing_else()
    told.says("too large", "a record for this saga cannot be taken in: too large")
    assert told.decision.transitions[0].target == "input"  # type: ignore[union-attr]


# Controls -----------------------------------------------------------------------------------------------------------


def test_a_cancel_turns_back_and_a_second_one_is_recorded() -> None:
    story = Story(PAIR)
    story.starts()
    story.replies("a")
    story.cancels().then("CancelRequested", "SagaTurnedBack").because("the customer called").and_nothing_else()
    story.cancels().then("ControlIgnored").because("already being undone").and_nothing_else()
    told = story.timer().then("StepTimedOut b 1", "StepGivenUp b 1")
    told.then("CompensationScheduled b 1", "CompensationScheduled a 1")
    told.sends("b compensation 1", "a compensation 1").and_nothing_else()


@pytest.mark.parametrize("verb", Verb)
def test_controls_for_nobody_for_an_ended_saga_and_with_nothing_to_do(verb: Verb) -> None:
    story = Story(definition(task("a")))
    story.operator(verb).then("ControlIgnored").because("no saga with this id").and_nothing_else()
    assert story.state is None
    story.starts()
    if verb is not Verb.CANCEL:
        story.operator(verb, "a").then("ControlIgnored a").and_nothing_else()
        story.operator(verb, "nobody").then("ControlIgnored nobody").and_nothing_else()
        story.operator(verb).then("ControlIgnored").and_nothing_else()
    story.replies("a")
    story.operator(verb).then("ControlIgnored").because("the saga has ended").and_nothing_else()


def test_skip_puts_a_reply_in_the_place_of_a_step_that_waits() -> None:
    wanted = command("DoA", reply="shop.DoneA", retry=TWICE)
    story = Story(definition(task("a", forward=wanted, keep=["id"]), task("b", after=["a"])))
    story.starts()
    story.skips("a").then("ControlIgnored a").because("cannot be skipped").and_nothing_else()
    story.replies("a", Outcome.FAILED)
    story.skips("a").then("ControlIgnored a").because("needs the reply shop.DoneA").and_nothing_else()
    story.skips("a", opened("shop.Else")).then("ControlIgnored a").because("shop.DoneA").and_nothing_else()
    told = story.skips(None, opened("shop.DoneA", {"id": 7})).then("StepSucceeded a 1", "StepScheduled b 1")
    told.sends("b forward 1").and_nothing_else()
    assert story.saga.data["a"] == {"id": 7}


def test_skip_has_to_name_a_step_where_several_wait() -> None:
    story = Story(PAIR)
    story.starts()
    story.replies("a", Outcome.FAILED)
    story.replies("b", Outcome.FAILED)
    story.skips().then("ControlIgnored").because("name one of a, b").and_nothing_else()
    story.skips("b").then("StepSucceeded b 1").and_nothing_else()


def test_skip_ends_the_wait_for_the_next_attempt_to_undo() -> None:
    story = Story(definition(task("a", compensate=command("UndoA", retry=TWICE)), task("b", after=["a"])))
    story.starts()
    story.replies("a")
    story.replies("b", Outcome.REJECTED)
    told = story.replies("a", Outcome.FAILED, undo=True).then(
        "CompensationFailed a 1", "CompensationRetryScheduled a 2"
    )
    told.and_nothing_else()
    story.skips("a").then("CompensationSucceeded a 1", "SagaCompensated").and_nothing_else()


def test_a_retry_asks_the_condition_only_of_a_step_that_has_sent_no_command() -> None:
    pivot = task("ship", kind=Kind.PIVOT)
    asked = task("archive", after=["ship"], kind=Kind.RETRIABLE, when=Failing())
    story = Story(definition(pivot, asked))
    story.starts()
    story.replies("ship").then("StepSucceeded ship 1", "MappingFailed archive", "SagaParked archive")
    story.retries().then("SagaUnparked archive", "MappingFailed archive", "SagaParked archive").and_nothing_else()

    tried = task("archive", after=["ship"], kind=Kind.RETRIABLE, when=Constant(True))
    story = Story(definition(pivot, tried), checked=False)
    story.starts()
    story.replies("ship").then("StepSucceeded ship 1", "StepScheduled archive 1")
    story.replies("archive", Outcome.FAILED)
    story.definition = definition(pivot, asked)
    story.retries().then("SagaUnparked archive", "StepScheduled archive 2").sends("archive forward 2")


def test_retry_of_one_parked_step_gives_up_the_others_when_it_turns_the_saga_back() -> None:
    """A command that could be computed before and no longer can: what it reads of its sibling has changed."""
    flaky = command("DoA", {"x": Path("c.gone")})
    story = Story(definition(task("a", forward=flaky), task("b"), task("c")), checked=False)
    story.definition = definition(task("a"), task("b"), task("c"))
    story.starts(refusals=(*refused(Refused.COMMAND, "a"), *refused(Refused.COMMAND, "b")))
    assert {name: step.status for name, step in story.saga.steps.items()} == {
        "a": StepStatus.PARKED,
        "b": StepStatus.PARKED,
        "c": StepStatus.IN_FLIGHT,
    }
    story.definition = definition(task("a", forward=flaky), task("b"), task("c"))
    told = story.retries().then("SagaUnparked a", "MappingFailed a", "SagaTurnedBack a", "StepGivenUp b")
    told.and_nothing_else()


def test_a_saga_parked_as_a_whole_stands_still_until_a_person_comes() -> None:
    story = Story(definition(task("a"), task("b", after=["a"]), deadline_ms=10))
    story.starts()
    too_large(story)
    assert next_due_ms(story.saga) is None, "neither the deadline nor a time-out comes while a person is awaited"
    story.replies("a").then("StepSucceeded a 1").and_nothing_else()
    story.retries("a").then("ControlIgnored a").and_nothing_else()
    story.retries().then("SagaUnparked", "StepScheduled b 1").sends("b forward 1").and_nothing_else()
    story.timer().then("DeadlinePassed", "SagaTurnedBack").and_nothing_else()


def test_a_failure_in_a_parked_saga_turns_it_back_and_it_stays_parked() -> None:
    story = Story(PAIR)
    story.starts()
    too_large(story)
    story.replies("a", Outcome.REJECTED).then("StepRejected a 1", "SagaTurnedBack a").and_nothing_else()
    story.replies("b").then("StepSucceeded b 1").and_nothing_else()
    assert story.saga.parked is not None
    told = story.retries().then("SagaUnparked", "CompensationScheduled b 1").sends("b compensation 1")
    told.and_nothing_else()


def test_a_cancel_of_a_parked_saga_lets_it_go_on_backwards() -> None:
    story = Story(PAIR)
    story.starts()
    story.replies("a")
    too_large(story)
    story.cancels().then("CancelRequested", "SagaUnparked", "SagaTurnedBack").and_nothing_else()
    story.replies("b", Outcome.EXPIRED).then("StepExpired b 1", "StepGivenUp b 1", "CompensationScheduled a 1")


# Timers -------------------------------------------------------------------------------------------------------------


def test_rule_14_a_timer_fires_in_partition_time_so_a_reply_in_the_log_wins() -> None:
    """Rule 14: after an outage the wall clock is far ahead of what the partition has shown."""
    story = Story(PAIR)
    story.starts()
    story.now_ms = 3_600_000
    timer = TimerDue(cause=Cause(message_id="t", type="timer"))
    story.decides(timer, partition_ms=1_999).and_nothing_else()
    story.replies("a").then("StepSucceeded a 1").and_nothing_else()
    told = story.decides(timer, partition_ms=2_000).then("StepTimedOut b 1", "StepRetryScheduled b 2")
    told.and_nothing_else()
    assert 3_600_500 <= (story.step("b").due_at_ms or 0) <= 3_601_000, "pauses count from decision time"


def test_one_timer_at_a_time_the_earliest_first() -> None:
    slow = command("DoB", timeout_ms=1_500)
    story = Story(definition(task("a"), task("b", forward=slow), deadline_ms=1_200))
    story.starts()
    story.signals(message_id="s-1", keep_ms=1_100)
    story.now_ms = 60_000
    story.timer().then("StepTimedOut a 1", "StepGivenUp a 1", "SagaTurnedBack a").and_nothing_else()
    (expired,) = story.timer().then("SignalExpired").and_nothing_else().decision.transitions
    assert isinstance(expired, SignalExpired)
    assert (expired.name, expired.message_id) == ("approve", "s-1")
    story.timer().then("DeadlinePassed").and_nothing_else()
    story.timer().then("StepTimedOut b 1", "StepGivenUp b 1", "SagaCompensated").and_nothing_else()


def test_a_deadline_gives_up_a_step_that_is_parked_before_the_pivot() -> None:
    story = Story(definition(task("a"), deadline_ms=500))
    story.starts(refusals=refused(Refused.COMMAND, "a"))
    assert story.step("a").status is StepStatus.PARKED
    told = story.timer().then("DeadlinePassed", "SagaTurnedBack", "StepGivenUp a", "SagaCompensated")
    told.and_nothing_else()
    assert [fact.header.attempt for fact in told.decision.transitions] == [None] * 4


def test_a_timer_with_nothing_to_wait_for_is_nothing() -> None:
    story = Story(PAIR)
    story.decides(TimerDue(cause=Cause(message_id="t", type="timer"))).and_nothing_else()
    assert story.state is None


# Signals ------------------------------------------------------------------------------------------------------------


def test_a_signal_before_its_saga_is_kept_and_taken_into_it() -> None:
    """Rule 8: a signal may come before its saga."""
    story = Story(PAIR)
    told = story.signals(message_id="s-1", keep_ms=5_000).then("SignalKept").and_nothing_else()
    assert told.decision.transitions[0].header.run is None
    story.signals(message_id="s-1").then("SignalIgnored").because("kept already").and_nothing_else()
    story.signals("other", message_id="s-2", keep_ms=10).then("SignalKept").and_nothing_else()
    assert isinstance(story.state, Early)
    assert story.state.saga_id == story.saga_id
    (expired,) = story.timer().then("SignalExpired").and_nothing_else().decision.transitions
    assert isinstance(expired, SignalExpired)
    assert (expired.name, expired.message_id, story.state.saga_id) == ("other", "s-2", story.saga_id)
    told = story.starts().then("SagaStarted", "SignalKept", "StepScheduled a 1", "StepScheduled b 1")
    told.sends("a forward 1", "b forward 1").and_nothing_else()
    payload = opened("shop.Approved").payload
    kept = KeptSignal(name="approve", message_id="s-1", payload=payload, expires_at_ms=6_000)
    assert story.saga.signals == (kept,)
    story.signals(message_id="s-1").then("SignalIgnored").because("kept already").and_nothing_else()


def test_the_last_early_signal_that_expires_leaves_nothing() -> None:
    story = Story(PAIR)
    story.signals(keep_ms=10)
    story.timer().then("SignalExpired").and_nothing_else()
    assert story.state is None


def test_a_signal_is_kept_in_a_live_saga_and_not_by_an_ended_one() -> None:
    story = Story(definition(task("a"), again=Again.ALWAYS, dedupe_ms=1_000))
    story.starts()
    story.signals(message_id="s-1").then("SignalKept").and_nothing_else()
    assert story.saga.signals[0].payload == opened("shop.Approved").payload
    story.replies("a")
    story.signals().then("SignalIgnored").because("the saga has ended: completed").and_nothing_else()
    story.now_ms += 1_000
    story.signals().then("SignalKept").and_nothing_else()
    assert isinstance(story.state, Early), "its marker has expired: the key is free again"


# What cannot be sent or recorded ------------------------------------------------------------------------------------


def test_rule_21_a_command_that_cannot_be_sent_parks_its_step_and_can_be_retried() -> None:
    """Rule 21: one record that the broker refuses parks its own saga only."""
    story = Story(PAIR)
    told = story.starts(refusals=refused(Refused.COMMAND, "a"))
    told.then("SagaStarted", "SendFailed a", "SagaParked a", "StepScheduled b 1").sends("b forward 1")
    told.because("the command cannot be sent: too large").and_nothing_else()
    told = story.retries("a").then("SagaUnparked a", "StepScheduled a 1").sends("a forward 1").and_nothing_else()


def test_a_compensation_that_cannot_be_sent_parks() -> None:
    story = Story(definition(task("a", compensate=command("UndoA")), task("b", after=["a"])))
    story.starts()
    story.replies("a")
    told = story.replies("b", Outcome.REJECTED, refusals=refused(Refused.COMPENSATION, "a"))
    told.then("StepRejected b 1", "SagaTurnedBack b", "SendFailed a", "SagaParked a").and_nothing_else()
    story.retries().then("SagaUnparked a", "CompensationScheduled a 1").sends("a compensation 1").and_nothing_else()


@pytest.mark.parametrize("target", [Refused.EVENT, Refused.RESULT])
def test_an_end_that_cannot_be_told_parks_and_nothing_of_it_is_sent(target: Refused) -> None:
    story = Story(definition(task("a"), completed=publication("OrderConfirmed")))
    story.starts(reply_to=ReplyTo(topic="results", partition=0))
    told = story.replies("a", refusals=refused(target)).then("StepSucceeded a 1", "SendFailed", "SagaParked")
    told.because(f"the {target.value} cannot be sent: too large").and_nothing_else()
    told = story.operator(Verb.SKIP, refusals=refused(target)).then("SagaUnparked", "SendFailed", "SagaCompleted")
    other = "result completed" if target is Refused.EVENT else "publish shop.OrderConfirmed"
    told.sends(other).and_nothing_else()


def test_an_end_without_a_pivot_that_cannot_be_told_can_still_be_cancelled() -> None:
    story = Story(definition(task("a", compensate=command("UndoA")), completed=publication("OrderConfirmed")))
    story.starts()
    story.replies("a", refusals=refused(Refused.EVENT))
    told = story.cancels().then("CancelRequested", "SagaUnparked", "SagaTurnedBack", "CompensationScheduled a 1")
    told.sends("a compensation 1").and_nothing_else()


def test_an_end_that_can_be_told_again_is_told_on_retry() -> None:
    story = Story(definition(task("a", kind=Kind.PIVOT), completed=publication("OrderConfirmed")))
    story.starts()
    story.replies("a", refusals=refused(Refused.EVENT))
    told = story.retries().then("SagaUnparked", "SagaCompleted").sends("publish shop.OrderConfirmed")
    told.and_nothing_else()


INPUTS: list[tuple[Event, str]] = [
    (Start(cause=Cause(message_id="x", type="start"), definition="d", key="o-1", run=9, payload=None), "StartIgnored"),
    (
        Reply(cause=Cause(message_id="x", type="reply"), command_id="c", outcome=Outcome.SUCCEEDED, payload=None),
        "ReplyIgnored",
    ),
    (Signal(cause=Cause(message_id="x", type="signal"), name="s", payload=None, keep_ms=9), "SignalIgnored"),
    (Control(cause=Cause(message_id="x", type="control"), verb=Verb.SKIP), "ControlIgnored"),
]


@pytest.mark.parametrize(("event", "ignored"), INPUTS)
@pytest.mark.parametrize("there", ["nothing", "a live saga", "a marker"])
def test_an_event_that_cannot_be_recorded(event: Event, ignored: str, there: str) -> None:
    story = Story(definition(task("a"), again=Again.ALWAYS))
    if there != "nothing":
        story.starts()
    if there == "a marker":
        story.replies("a")
    unrecordable = type(event)(
        **{name: getattr(event, name) for name in event.__dataclass_fields__} | {"refusals": refused(Refused.INPUT)}
    )
    told = story.decides(unrecordable)
    if there == "a live saga" and not isinstance(event, Start):
        told.then("SendFailed", "SagaParked").because("cannot be taken in: too large").and_nothing_else()
        assert story.saga.status is Status.RUNNING
    else:
        told.then(ignored).because("cannot be taken in: too large").and_nothing_else()


@pytest.mark.parametrize("live", [True, False])
def test_an_undecodable_record_is_dead_lettered_beside_every_saga(live: bool) -> None:
    story = Story(PAIR)
    if live:
        story.starts()
    before = story.state
    event = Undecodable(cause=story.cause("undecodable"), reason="no magic byte", dead_letter_topic="saga.dlq")
    told = story.decides(event).then("RecordDeadLettered").because("no magic byte").and_nothing_else()
    (fact,) = told.decision.transitions
    assert (story.state, fact.header.seq) == (before, None)
    assert isinstance(fact, RecordDeadLettered)
    assert fact.dead_letter_topic == "saga.dlq"


def test_a_state_without_signals_is_never_due() -> None:
    assert next_due_ms(Early(saga_id="s-1", signals=())) is None
