"""Forward: starts, chains, joins, conditions, retries, ends."""

from dataclasses import replace

import pytest

from sagakit.core import ids
from sagakit.core.actions import PublishEvent, SendCommand, SendResult
from sagakit.core.address import Address
from sagakit.core.decide import decide
from sagakit.core.definition import Again, Kind, RetryPolicy
from sagakit.core.events import Cause, Control, Now, Outcome, Reply, ReplyTo, Source, Start, TraceContext, Verb
from sagakit.core.state import End, Saga, StepStatus
from sagakit.core.transitions import FailureKind, StepScheduled
from sagakit.proving.definitions import Constant, Failing, Path, command, definition, publication, task
from tests.unit.core.story import START, Story, opened, order

THRICE = RetryPolicy(attempts=3, backoff_ms=1_000, max_ms=1_000)
CHAIN = definition(
    task("reserve", forward=command("Reserve", {"order": Path("start.order_id")}, reply="shop.Reserved"), keep=["id"]),
    task("charge", after=["reserve"], forward=command("Charge", {"for": Path("reserve.id")}, service="bank")),
    start_keep=["order_id"],
    completed=publication("OrderConfirmed", {"order": Path("start.order_id"), "by": Path("reserve.id")}),
)


def test_a_chain_runs_to_its_end() -> None:
    story = Story(CHAIN)
    told = story.starts(reply_to=ReplyTo(topic="results", partition=3))
    told.then("SagaStarted", "StepScheduled reserve 1").sends("reserve forward 1").and_nothing_else()
    told = story.replies("reserve", payload=opened("shop.Reserved", {"id": "r-1", "unread": "x"}))
    told.then("StepSucceeded reserve 1", "StepScheduled charge 1").sends("charge forward 1").and_nothing_else()
    assert story.saga.data == {"start": {"order_id": "o-1"}, "reserve": {"id": "r-1"}}
    told = story.replies("charge").then("StepSucceeded charge 1", "SagaCompleted")
    told.sends("publish shop.OrderConfirmed", "result completed").and_nothing_else()
    assert (story.marker.end, story.marker.seq) == (End.COMPLETED, 6)


def test_what_is_sent() -> None:
    story = Story(CHAIN)
    story.starts(reply_to=ReplyTo(topic="results", partition=3))
    run = story.saga.run
    story.replies("reserve", payload=opened("shop.Reserved", {"id": "r-1"}))
    story.replies("charge")
    reserve, charge, event, result = story.actions
    assert isinstance(charge, SendCommand)
    assert (charge.service, charge.type, dict(charge.data)) == (
        "bank",
        "shop.Charge",
        {"for": "r-1"},
    )
    assert charge.command_id == ids.command_id(story.saga_id, run, "charge", "forward", 1)
    assert charge.idempotency_key == ids.idempotency_key(story.saga_id, run, "charge", "forward", 0)
    assert (charge.undoes, charge.expires_at_ms, charge.causation_id) == (None, 2_000, "reply-2")
    assert isinstance(reserve, SendCommand)
    assert reserve.causation_id == "start-1"
    assert isinstance(event, PublishEvent)
    assert (event.key, event.topic, dict(event.data)) == ("o-1", "orders.events", {"order": "o-1", "by": "r-1"})
    assert event.event_id == ids.event_id(story.saga_id, run, story.marker.seq, 0)
    assert isinstance(result, SendResult)
    assert (result.reply_to.partition, result.end, result.key) == (3, "completed", "o-1")
    assert result.event_id == ids.event_id(story.saga_id, run, story.marker.seq, 1)


def test_the_causes_of_a_decision_point_to_the_first_that_carries_the_input() -> None:
    story = Story(CHAIN)
    started, scheduled = story.starts().decision.transitions
    assert isinstance(started.input, Start)
    assert (started.header.cause.seq, scheduled.header.cause.seq, scheduled.input) == (None, 1, None)
    assert started.header.cause.message_id == scheduled.header.cause.message_id
    assert isinstance(scheduled, StepScheduled)
    assert (scheduled.header.direction, scheduled.due_at_ms) == (story.actions[0].direction, 2_000)  # type: ignore[union-attr]


def test_the_trace_of_the_start_goes_on_through_replies_and_timers_that_have_none() -> None:
    trace = TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    patient = definition(
        task("reserve", forward=command("Reserve", retry=THRICE), compensate=command("Release")),
        task("charge", after=["reserve"], forward=command("Charge")),
        compensated=publication("OrderRejected"),
    )
    event = Story(patient).starts(reply_to=ReplyTo(topic="results", partition=3)).decision.transitions[0].input
    assert isinstance(event, Start)
    story = Story(patient)
    story.decides(replace(event, trace=trace))
    story.timer().then("StepTimedOut reserve 1")
    story.timer().sends("reserve forward 2")
    story.replies("reserve")
    story.timer().then("StepTimedOut charge 1")
    while isinstance(story.state, Saga):
        story.replies("charge" if story.step("charge").status is StepStatus.UNDOING else "reserve", undo=True)
    assert {order(action) for action in story.actions} >= {
        "reserve forward 2",
        "reserve compensation 1",
        "publish shop.OrderRejected",
        "result compensated",
    }
    assert {fact.header.trace for fact in story.history} == {trace}
    assert {action.trace for action in story.actions} == {trace}


def test_a_join_waits_for_every_branch_and_a_fork_starts_them_all() -> None:
    story = Story(definition(task("a"), task("b", after=["a"]), task("c", after=["a"]), task("d", after=["b", "c"])))
    story.starts().then("SagaStarted", "StepScheduled a 1").sends("a forward 1").and_nothing_else()
    told = story.replies("a").then("StepSucceeded a 1", "StepScheduled b 1", "StepScheduled c 1")
    told.sends("b forward 1", "c forward 1").and_nothing_else()
    story.replies("c").then("StepSucceeded c 1").and_nothing_else()
    story.replies("b").then("StepSucceeded b 1", "StepScheduled d 1").sends("d forward 1").and_nothing_else()
    story.replies("d").then("StepSucceeded d 1", "SagaCompleted").and_nothing_else()


def test_a_false_condition_settles_its_step_and_what_follows_runs_at_once() -> None:
    gift = Path("start.gift")
    story = Story(
        definition(task("a", when=gift), task("b", after=["a"], when=gift), task("c", after=["b"]), start_keep=["gift"])
    )
    told = story.starts({"gift": False}).then("SagaStarted", "StepSkipped a", "StepSkipped b", "StepScheduled c 1")
    told.sends("c forward 1").and_nothing_else()


def test_a_saga_all_of_whose_steps_are_skipped_ends_with_its_start() -> None:
    story = Story(definition(task("a", when=Constant(False)), task("b", after=["a"], when=Constant(False))))
    story.starts().then("SagaStarted", "StepSkipped a", "StepSkipped b", "SagaCompleted").and_nothing_else()


@pytest.mark.parametrize(
    ("when", "said"),
    [(Failing(), "when: division by zero"), (Constant(1), "gives a value of type int, not true or false")],
)
def test_a_first_step_whose_condition_has_no_value_ends_the_saga_with_its_start(when: Constant, said: str) -> None:
    told = Story(definition(task("a", when=when))).starts()
    told.then("SagaStarted", "MappingFailed a", "SagaTurnedBack a", "SagaCompensated").because(said).and_nothing_else()


def test_a_command_that_has_no_value_turns_back_and_is_never_retried() -> None:
    failing = command("DoB", {"x": Constant(1), "y": Failing()}, retry=THRICE)
    story = Story(definition(task("a", compensate=command("UndoA")), task("b", after=["a"], forward=failing)))
    story.starts()
    told = story.replies("a").then(
        "StepSucceeded a 1", "MappingFailed b", "SagaTurnedBack b", "CompensationScheduled a 1"
    )
    told.sends("a compensation 1").because("y: division by zero").and_nothing_else()
    assert story.saga.failure is not None
    assert (story.saga.failure.kind, story.saga.failure.step) == (FailureKind.MAPPING, "b")


def test_siblings_begun_before_one_that_has_no_value_are_awaited_and_those_after_it_do_not_begin() -> None:
    story = Story(definition(task("a"), task("b", when=Failing()), task("c")))
    told = story.starts().then("SagaStarted", "StepScheduled a 1", "MappingFailed b", "SagaTurnedBack b")
    told.sends("a forward 1").and_nothing_else()
    story.replies("a").then("StepSucceeded a 1", "SagaCompensated").and_nothing_else()


def test_an_event_at_the_end_that_has_no_value_parks_the_saga_and_a_person_can_end_it() -> None:
    story = Story(definition(task("a"), completed=publication("OrderConfirmed", {"x": Failing()})))
    story.starts(reply_to=ReplyTo(topic="results", partition=0))
    told = story.replies("a").then("StepSucceeded a 1", "MappingFailed", "SagaParked")
    told.because("x: division by zero").and_nothing_else()
    story.retries().then("SagaUnparked", "MappingFailed", "SagaParked").and_nothing_else()
    story.skips(payload=opened("shop.Other")).then("ControlIgnored").because("shop.OrderConfirmed").and_nothing_else()
    told = story.skips().then("SagaUnparked", "MappingFailed", "SagaCompleted")
    told.sends("result completed").and_nothing_else()


def test_a_person_can_give_the_event_at_the_end() -> None:
    story = Story(definition(task("a"), completed=publication("OrderConfirmed", {"x": Failing()})))
    story.starts()
    story.replies("a")
    told = story.skips(payload=opened("shop.OrderConfirmed", {"x": 7})).then("SagaUnparked", "SagaCompleted")
    told.sends("publish shop.OrderConfirmed").and_nothing_else()
    assert story.actions[-1].data == {"x": 7}  # type: ignore[union-attr]


def test_attempts_are_retried_with_pauses_and_then_given_up() -> None:
    """Rule 12: each is another command, and all have one idempotency key."""
    story = Story(definition(task("a", forward=command("DoA", retry=THRICE), compensate=command("UndoA"))))
    story.starts()
    for attempt in (1, 2):
        told = story.replies("a", Outcome.FAILED, code="KeyError", message="'sku'")
        told.then(f"StepFailed a {attempt}", f"StepRetryScheduled a {attempt + 1}").and_nothing_else()
        assert story.step("a").status is StepStatus.BACKING_OFF
        pause_ms = (story.step("a").due_at_ms or 0) - story.now_ms
        assert 500 <= pause_ms <= 1_000
        told = story.timer().then(f"StepScheduled a {attempt + 1}").sends(f"a forward {attempt + 1}")
        told.and_nothing_else()
    told = story.timer().then("StepTimedOut a 3", "StepGivenUp a 3", "SagaTurnedBack a", "CompensationScheduled a 1")
    told.sends("a compensation 1").because("no reply within 1000 ms").and_nothing_else()
    assert story.step("a").unknown == (1, 2, 3)
    sent = [action for action in story.actions if isinstance(action, SendCommand) and not action.undoes]
    assert len({action.idempotency_key for action in sent}) == 1, "a retry must not charge twice"
    assert len({action.command_id for action in sent}) == 3


def test_success_with_another_record_than_the_definition_names_is_a_failure_that_may_have_happened() -> None:
    story = Story(CHAIN)
    story.starts()
    told = story.replies("reserve", payload=opened("shop.Surprise"))
    told.then("StepFailed reserve 1", "StepGivenUp reserve 1", "SagaTurnedBack reserve", "SagaCompensated")
    told.because("the reply is shop.Surprise, the definition says shop.Reserved").and_nothing_else()


@pytest.mark.parametrize(("code", "declared"), [("OUT_OF_STOCK", True), ("MOON_PHASE", False), (None, False)])
def test_an_undeclared_rejection_is_handled_and_told_apart(code: str | None, declared: bool) -> None:
    story = Story(definition(task("a", rejects=["OUT_OF_STOCK"])))
    story.starts()
    told = story.replies("a", Outcome.REJECTED, code=code)
    told.then("StepRejected a 1", "SagaTurnedBack a", "SagaCompensated").and_nothing_else()
    assert told.decision.transitions[0].declared is declared  # type: ignore[union-attr]


def test_replies_to_an_ended_saga_to_another_run_and_to_nobody_are_only_recorded() -> None:
    story = Story(definition(task("a"), again=Again.ALWAYS))
    story.starts()
    story.replies("a").then("StepSucceeded a 1", "SagaCompleted").and_nothing_else()
    late = story.replies("a", attempt=1)
    late.then("ReplyIgnored").because("the saga has ended: completed").and_nothing_else()
    reply = late.decision.transitions[0].input
    assert reply is not None
    story.starts().then("SagaStarted", "StepScheduled a 1").sends("a forward 1").and_nothing_else()
    story.decides(reply).then("ReplyIgnored").because("no command of this run").and_nothing_else()
    nobody = Story(CHAIN)
    told = nobody.decides(reply).then("ReplyIgnored").because("no saga with this id is known")
    told.and_nothing_else()
    assert (nobody.state, nobody.history[0].header.run, nobody.history[0].header.seq) == (None, None, None)


def test_data_read_by_expressions_has_an_entry_for_each_step_and_the_failure() -> None:
    seen: list[object] = []

    def spy(data: object, /) -> str:
        seen.append(data)
        return "x"

    story = Story(
        definition(
            task("a", forward=command("DoA", {"f": spy}), compensate=command("UndoA", {"f": spy})),
            task("b", after=["a"]),
            start_keep=["order_id"],
        ),
        checked=False,
    )
    story.starts()
    assert seen == [{"start": {"order_id": "o-1"}, "a": {}, "b": {}}]
    story.replies("a")
    story.replies("b", Outcome.REJECTED, code="NO", message="not today")
    failure = {"step": "b", "kind": "rejected", "code": "NO", "message": "not today"}
    assert seen[1:] == [{"start": {"order_id": "o-1"}, "a": {}, "b": {}, "failure": failure}]
    last = seen[-1]
    assert isinstance(last, dict)
    assert {type(name) for name in last} == {type(failure["step"])} == {str}, "plain strings: libraries are picky"


def test_a_failure_is_read_by_what_is_decided_in_the_same_turn() -> None:
    undo = command("UndoA", {"why": Path("failure.kind"), "where": Path("failure.step")})
    broken = command("DoB", {"x": Failing()})
    story = Story(definition(task("a", compensate=undo), task("b", after=["a"], forward=broken)))
    story.starts()
    story.replies("a").then("StepSucceeded a 1", "MappingFailed b", "SagaTurnedBack b", "CompensationScheduled a 1")
    assert story.actions[-1].data == {"why": "mapping", "where": "b"}  # type: ignore[union-attr]


def test_a_cancel_is_a_failure_of_no_step() -> None:
    undo = command("UndoA", {"why": Path("failure.kind"), "where": Path("failure.step")})
    story = Story(definition(task("a", compensate=undo), task("b", after=["a"])))
    story.starts()
    story.replies("a")
    story.cancels()
    story.replies("b", Outcome.EXPIRED).sends("a compensation 1")
    assert story.actions[-1].data == {"why": "cancelled", "where": None}  # type: ignore[union-attr]


def test_a_record_for_an_ended_saga_names_the_definition_that_ran() -> None:
    story = Story(definition(task("a"), name="place-order", version=3))
    story.starts()
    story.replies("a")
    cause = Cause(message_id="late", type="reply")
    late = Reply(cause=cause, command_id="c", outcome=Outcome.SUCCEEDED, payload=None)
    now = Now(decision_ms=2_000, partition_ms=2_000)
    (ignored,) = decide(story.saga_id, None, story.state, late, now).transitions
    assert (ignored.header.definition, ignored.header.version) == ("place-order", 3)


def test_a_record_for_an_unknown_saga_keeps_its_trace() -> None:
    trace = TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    cause = Cause(message_id="late", type="reply")
    late = Reply(cause=cause, trace=trace, command_id="c", outcome=Outcome.SUCCEEDED, payload=None)
    (ignored,) = Story(CHAIN).decides(late).decision.transitions
    assert (ignored.header.trace, ignored.input) == (trace, late)


def test_all_that_a_control_leads_to_says_who_asked_why_and_on_which_ticket() -> None:
    story = Story(definition(task("a"), task("b")))
    story.starts()
    source = Source(topic="saga.inbox", partition=0, offset=9)
    cause = Cause(message_id="m", type="control", source=source, actor="kim", reason="fraud", ticket="OPS-7")
    requested, turned_back = story.decides(Control(cause=cause, verb=Verb.CANCEL)).decision.transitions
    assert requested.header.cause == cause
    assert turned_back.header.cause == replace(cause, seq=requested.header.seq)


def test_a_start_keeps_only_what_is_read() -> None:
    """Rule 21: one record that the broker refuses stops one saga."""
    story = Story(definition(task("a"), start_keep=["amount", "absent"]))
    story.starts(START)
    assert story.saga.data == {"start": {"amount": 30}}
    assert story.saga.steps.keys() == {Address("a")}


def test_kinds_do_not_matter_on_a_good_day() -> None:
    story = Story(
        definition(task("a"), task("p", after=["a"], kind=Kind.PIVOT), task("r", after=["p"], kind=Kind.RETRIABLE))
    )
    story.starts()
    for name in "ap":
        story.replies(name)
    story.replies("r").then("StepSucceeded r 1", "SagaCompleted").and_nothing_else()
