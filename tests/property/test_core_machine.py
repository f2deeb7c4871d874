"""An adversarial world around one saga: what can be late, lost, doubled, out of order or wrong is all of that.

The participants are truthful only in what the protocol asks of them (see `sagakit.proving.participants`). The
invariants hold after each step. At the end the world comes to rest, and then everybody who can help does: every saga
ends, and the books balance.
"""

from dataclasses import replace

import pytest
from hypothesis import event as seen
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sagakit.core import ids
from sagakit.core.actions import SendCommand
from sagakit.core.address import Address
from sagakit.core.decide import Decision, decide
from sagakit.core.definition import Definition
from sagakit.core.events import (
    Cause,
    Control,
    Event,
    Now,
    Outcome,
    Refusal,
    Refused,
    Reply,
    ReplyTo,
    Signal,
    Start,
    TimerDue,
    Verb,
)
from sagakit.core.evolve import fold
from sagakit.core.schedule import end_reached, next_due_ms
from sagakit.core.state import Early, Saga, State, StepStatus
from sagakit.core.transitions import CompensationSucceeded, Direction, StepGivenUp, StepSucceeded, Transition
from sagakit.proving.invariants import check, check_at_rest, check_effects, runs
from sagakit.proving.participants import Mood, Participant
from tests.property.strategies import EXAMPLES, REPLY, TIMEOUT_S, definitions, opened

pytestmark = pytest.mark.timeout(TIMEOUT_S)

SAGA = ids.saga_id("default", "place-order", "o-1")
STRANGER = ids.command_id(SAGA, 999, "ash", "forward", 1)

moods = st.sampled_from(Mood)
fates = st.sampled_from([*["arrives"] * 6, "again", "lost", "wrong"])


class World(RuleBasedStateMachine):
    """One saga id, its participants, the network between them, and operators who know no mercy."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000
        self.partition_ms = 1_000
        self.lag_ms = 0
        self.offset = 0
        self.state: State | None = None
        self.history: list[Transition] = []
        self.checked = 0
        self.participant = Participant()
        self.commands: list[SendCommand] = []
        self.replies: list[Reply] = []
        self.broken: frozenset[tuple[Refused, Address | None]] = frozenset()
        self.definition: Definition

    # What the orchestrator does ----------------------------------------------------------------------------------

    def happens(self, event: Event) -> Decision:
        """Decide an event as the loop does: what cannot be sent is fed back, and then it is decided again."""
        self.partition_ms = max(self.partition_ms, self.now_ms - self.lag_ms)
        now = Now(decision_ms=self.now_ms, partition_ms=self.partition_ms)
        while True:
            decision = decide(SAGA, self.definition, self.state, event, now)
            refused = next((found for action in decision.actions if (found := self._refused(action))), None)
            if refused is None:
                break
            assert refused not in event.refusals, "what was refused is not asked for again"
            event = replace(event, refusals=(*event.refusals, refused))
        assert decision.transitions or isinstance(event, TimerDue), "a consumed record leaves a transition"
        if not isinstance(decision.state, Early) and any(fact.header.run is not None for fact in decision.transitions):
            assert fold(decision.transitions, self.state) == decision.state
        self.state = decision.state
        self.history.extend(decision.transitions)
        self.commands.extend(action for action in decision.actions if isinstance(action, SendCommand))
        return decision

    def _refused(self, action: object) -> Refusal | None:
        if not isinstance(action, SendCommand):
            target = Refused.EVENT if type(action).__name__ == "PublishEvent" else Refused.RESULT
            broken, address = (target, None) in self.broken, None
        else:
            forward = action.direction is Direction.FORWARD
            target, address = (Refused.COMMAND if forward else Refused.COMPENSATION), action.address
            broken = (target, address) in self.broken
        return Refusal(target=target, address=address, reason="too large") if broken else None

    def cause(self, kind: str, actor: str | None = None, message_id: str | None = None) -> Cause:
        self.offset += 1
        return Cause(message_id=message_id or f"{kind}-{self.offset}", type=kind, actor=actor)

    # Starts, commands, replies -----------------------------------------------------------------------------------

    @initialize(definition=definitions(), early=st.booleans())
    def begin(self, definition: Definition, early: bool) -> None:
        self.definition = definition
        if early:
            self.signal(5_000)
        self.start()

    def start(self, message: str | None = None, deadline_ms: int | None = None) -> None:
        cause = self.cause("start", message_id=message)
        self.happens(
            Start(
                cause=cause,
                definition="place-order",
                key="o-1",
                run=self.offset,
                payload=opened(),
                reply_to=ReplyTo(topic="results", partition=1),
                deadline_ms=deadline_ms,
            )
        )

    @rule(rounds=st.integers(0, 6), mood=moods)
    def all_goes_well(self, rounds: int, mood: Mood) -> None:
        """The usual life: commands arrive in order, are done, and their replies come back; the last one, by mood."""
        for turn in range(rounds + 1):
            if self.commands:
                self.handled(self.commands.pop(0), Mood.WORKS if turn < rounds else mood)
            if self.replies:
                self.happens(self.replies.pop(0))

    @precondition(lambda self: self.commands)
    @rule(which=st.integers(0, 9), mood=moods, again=st.integers(0, 3))
    def deliver_command(self, which: int, mood: Mood, again: int) -> None:
        """Any command that is under way arrives; one in four stays, to arrive a second time."""
        which %= len(self.commands)
        command = self.commands[which]
        if again:
            del self.commands[which]
        self.handled(command, mood)

    def handled(self, command: SendCommand, mood: Mood) -> None:
        answer = self.participant.handle(command, self.now_ms, mood)
        if answer is None:
            return
        payload = opened(f"shop.Done{command.address}", REPLY) if answer.outcome is Outcome.SUCCEEDED else None
        self.replies.append(
            Reply(
                cause=self.cause("reply"),
                command_id=command.command_id,
                outcome=answer.outcome,
                payload=payload,
                code=answer.code,
            )
        )

    @precondition(lambda self: self.replies)
    @rule(which=st.integers(0, 9), fate=fates)
    def deliver_reply(self, which: int, fate: str) -> None:
        """Any reply arrives; or it is lost, arrives once more later, or carries a record that nobody asked for."""
        which %= len(self.replies)
        reply = self.replies[which]
        if fate != "again":
            del self.replies[which]
        if reply.outcome is Outcome.SUCCEEDED and fate == "wrong":
            reply = replace(reply, payload=opened("shop.Wrong", REPLY))
        if fate != "lost":
            self.happens(reply)

    # Time --------------------------------------------------------------------------------------------------------

    @rule(late_ms=st.sampled_from([0, 0, 1, 1_500]), turns=st.integers(1, 3))
    def a_timer_comes(self, late_ms: int, turns: int) -> None:
        """Time passes until a timer is due, or later, and it fires; perhaps those after it do as well."""
        due_ms = None if self.state is None else next_due_ms(self.state)
        if due_ms is not None:
            self.now_ms = max(self.now_ms, due_ms + self.lag_ms) + late_ms
        for _ in range(turns):
            self.happens(TimerDue(cause=self.cause("timer")))

    @rule(by_ms=st.sampled_from([-50, 1, 200, 1_100]), lag_ms=st.sampled_from([0, 0, 300]))
    def time_passes(self, by_ms: int, lag_ms: int) -> None:
        """Nothing fires; where another instance takes over, its clock may be slow."""
        self.now_ms += by_ms
        self.lag_ms = lag_ms

    # Operators, and what else may come ---------------------------------------------------------------------------

    @rule(verb=st.sampled_from(Verb), named=st.integers(0, 9), filled=st.booleans())
    def operator(self, verb: Verb, named: int, filled: bool) -> None:
        """An operator asks for anything, of any step or of the saga."""
        known = [*self.definition.tasks, None]
        address = known[named % len(known)]
        fits = filled and verb is Verb.SKIP and address is not None
        payload = opened(f"shop.Done{address}", REPLY) if fits else None
        self.by_hand(Control(cause=self.cause("control", "kim"), verb=verb, address=address, payload=payload))

    def by_hand(self, control: Control) -> None:
        """What an operator says of a step, the operator has made true in the world."""
        before = dict(self.state.steps) if isinstance(self.state, Saga) else {}
        run = self.state.run if isinstance(self.state, Saga) else 0
        for fact in self.happens(control).transitions:
            step = fact.header.step
            if step is None:
                continue
            key = ids.idempotency_key(SAGA, run, step, Direction.FORWARD.value, 0)
            if isinstance(fact, StepSucceeded):
                self.participant.do_by_hand(key)
            elif isinstance(fact, CompensationSucceeded) or (
                isinstance(fact, StepGivenUp) and step in self.definition.pivots and before[step].unknown
            ):
                self.participant.undo_by_hand(key)

    @rule(
        what=st.sampled_from(["start", "same start", "signal", "foreign", "wrong", "too large"]),
        number=st.integers(0, 9),
    )
    def something_else(self, what: str, number: int) -> None:
        """What may come at any moment and seldom matters."""
        if what == "start":
            self.start(deadline_ms=[None, -1, 2_000][number % 3])
        elif what == "same start":
            self.start(message="start-again")
        elif what == "signal":
            self.signal(keep_ms=number * 100)
        elif what == "too large" and number == 0:
            refusal = Refusal(target=Refused.INPUT, address=None, reason="too large")
            self.happens(
                Signal(cause=self.cause("signal"), name="approve", payload=None, keep_ms=100, refusals=(refusal,))
            )
        else:
            self.foreign(list(Outcome)[number % len(Outcome)])

    def signal(self, keep_ms: int) -> None:
        self.happens(Signal(cause=self.cause("signal"), name="approve", payload=opened(), keep_ms=keep_ms))

    def foreign(self, outcome: Outcome) -> None:
        before = self.state
        decision = self.happens(Reply(cause=self.cause("reply"), command_id=STRANGER, outcome=outcome, payload=None))
        assert len(decision.transitions) == 1
        assert not decision.actions
        if isinstance(before, Saga):
            assert isinstance(decision.state, Saga)
            assert decision.state.steps == before.steps

    @rule(what=st.sampled_from(sorted(Refused, key=lambda refused: refused.value)), named=st.integers(0, 9))
    def breaks_or_mends(self, what: Refused, named: int) -> None:
        """From now on the broker refuses one record; until the next time, when all is mended."""
        alone = what in (Refused.EVENT, Refused.RESULT)
        tasks = list(self.definition.tasks)
        broken = (what, None if alone else tasks[named % len(tasks)])
        self.broken = frozenset() if self.broken else frozenset({broken})

    # What holds --------------------------------------------------------------------------------------------------

    @invariant()
    def rules_hold(self) -> None:
        if len(self.history) > self.checked:
            self.checked = len(self.history)
            assert check(SAGA, self.history, lambda *_: self.definition) == []

    def teardown(self) -> None:
        if self.history:
            self.come_to_rest(Mood.REFUSES)
            assert check_at_rest(SAGA, self.history, lambda *_: self.definition) == []
            self.broken = frozenset()
            self.help_out()
            self.rules_hold()
            standing = self.participant.standing
            for run in runs(self.history, lambda *_: self.definition):
                assert list(check_effects(run, standing)) == []

    def come_to_rest(self, mood: Mood) -> None:
        """Nobody but the clock, the network and the participants acts any more."""
        for _ in range(1_000):
            if self.commands:
                self.handled(self.commands.pop(0), mood)
            elif self.replies:
                self.happens(self.replies.pop(0))
            elif not isinstance(self.state, Saga) or (due := next_due_ms(self.state)) is None:
                return
            else:
                self.now_ms = max(self.now_ms, due + self.lag_ms)
                self.happens(TimerDue(cause=self.cause("timer")))
        raise AssertionError("the world does not come to rest")

    def help_out(self) -> None:
        """Operators retry what is parked and skip what does not mend: then every saga ends."""
        for _ in range(100):
            self.come_to_rest(Mood.WORKS)
            if not isinstance(self.state, Saga):
                return
            for control in self.remedies(self.state):
                seen(f"remedy: {control.verb.value}")
                self.by_hand(control)
        raise AssertionError(f"nothing that an operator does ends this saga: {self.state}")

    def remedies(self, saga: Saga) -> list[Control]:
        def asks(verb: Verb, address: Address | None) -> Control:
            return Control(cause=self.cause("control", "kim"), verb=verb, address=address)

        parked = [a for a, step in saga.steps.items() if step.status in (StepStatus.PARKED, StepStatus.UNDO_PARKED)]
        if not parked and end_reached(self.definition, saga) is not None:
            return [asks(Verb.SKIP, None)]
        if saga.parked is not None:
            return [asks(Verb.RETRY, None)]
        payloads = [opened(f"shop.Done{address}", REPLY) for address in parked]
        return [
            replace(asks(Verb.SKIP, address), payload=payload)
            for address, payload in zip(parked, payloads, strict=True)
        ]


TestWorld = World.TestCase
TestWorld.settings = settings(stateful_step_count=30, max_examples=3 * EXAMPLES)
