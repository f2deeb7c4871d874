"""An adversarial world around one saga: what can be late, lost, doubled, out of order or wrong is all of that.

The participants are truthful only in what the protocol asks of them (see `sagakit.proving.participants`). The
invariants hold after each step. At the end the world comes to rest, and then everybody who can help does: every saga
ends, and the books balance.
"""

from dataclasses import replace

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
    Signal,
    Start,
    TimerDue,
    Verb,
)
from sagakit.core.evolve import fold
from sagakit.core.schedule import end_reached, next_due_ms
from sagakit.core.state import Early, Saga, State, StepStatus
from sagakit.core.transitions import Direction, Transition
from sagakit.proving.invariants import check, check_at_rest, check_effects, runs
from sagakit.proving.participants import Mood, Participant
from tests.property.strategies import NAMES, REPLY, definitions, opened

SAGA = ids.saga_id("default", "place-order", "o-1")
STRANGER = ids.command_id(SAGA, 999, "ash", "forward", 1)

addresses = st.none() | st.sampled_from([Address(name) for name in NAMES])


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
        self.start(None, None)

    @rule(message=st.none() | st.just("start-again"), deadline_ms=st.none() | st.integers(-1, 3_000))
    def start(self, message: str | None, deadline_ms: int | None) -> None:
        cause = self.cause("start", message_id=message)
        self.happens(
            Start(
                cause=cause,
                definition="place-order",
                key="o-1",
                run=self.offset,
                payload=opened(),
                deadline_ms=deadline_ms,
            )
        )

    @precondition(lambda self: self.commands)
    @rule(which=st.integers(0, 99), mood=st.sampled_from(Mood), again=st.integers(0, 3))
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
    @rule(which=st.integers(0, 99), again=st.integers(0, 4), wrong=st.integers(0, 9))
    def deliver_reply(self, which: int, again: int, wrong: int) -> None:
        """Any reply arrives; some arrive again, are lost, or carry a record that nobody asked for."""
        which %= len(self.replies)
        reply = self.replies[which]
        if again:
            del self.replies[which]
        if reply.outcome is Outcome.SUCCEEDED and wrong == 0:
            reply = replace(reply, payload=opened("shop.Wrong", REPLY))
        if wrong != 1:
            self.happens(reply)

    @rule(outcome=st.sampled_from(Outcome))
    def foreign_reply(self, outcome: Outcome) -> None:
        before = self.state
        decision = self.happens(Reply(cause=self.cause("reply"), command_id=STRANGER, outcome=outcome, payload=None))
        assert len(decision.transitions) == 1
        assert not decision.actions
        if isinstance(before, Saga):
            assert isinstance(decision.state, Saga)
            assert decision.state.steps == before.steps

    # Time --------------------------------------------------------------------------------------------------------

    @rule(by_ms=st.sampled_from([1, 200, 1_100, 5_000]), lag_ms=st.sampled_from([0, 0, 300]))
    def time_passes(self, by_ms: int, lag_ms: int) -> None:
        self.now_ms += by_ms
        self.lag_ms = lag_ms

    @rule()
    def clock_jumps_back(self) -> None:
        """Another instance takes over, and its clock is slow."""
        self.now_ms -= 50

    @rule(turns=st.integers(1, 3))
    def timers_fire(self, turns: int) -> None:
        for _ in range(turns):
            self.happens(TimerDue(cause=self.cause("timer")))

    # Operators, signals, trouble ---------------------------------------------------------------------------------

    @rule(verb=st.sampled_from([Verb.CANCEL, Verb.RETRY]), address=addresses)
    def operator(self, verb: Verb, address: Address | None) -> None:
        # An operator who cancels an unknown pivot by name has made sure that it cannot happen.
        if verb is Verb.CANCEL and address is not None:
            self.happens_by_hand(Control(cause=self.cause("control", "kim"), verb=verb, address=address))
        else:
            self.happens(Control(cause=self.cause("control", "kim"), verb=verb, address=address))

    @rule(address=addresses, named=st.booleans())
    def skip(self, address: Address | None, named: bool) -> None:
        payload = opened(f"shop.Done{address}", REPLY) if named and address is not None else None
        self.happens_by_hand(
            Control(cause=self.cause("control", "kim"), verb=Verb.SKIP, address=address, payload=payload)
        )

    def happens_by_hand(self, control: Control) -> None:
        """What an operator says of a step, the operator has made true in the world."""
        before = dict(self.state.steps) if isinstance(self.state, Saga) else {}
        run = self.state.run if isinstance(self.state, Saga) else 0
        decision = self.happens(control)
        for fact in decision.transitions:
            step = fact.header.step
            if step is None or type(fact).__name__ not in ("CompensationSucceeded", "StepSucceeded", "StepGivenUp"):
                continue
            key = ids.idempotency_key(SAGA, run, step, Direction.FORWARD.value, 0)
            if type(fact).__name__ == "StepSucceeded":
                self.participant.do_by_hand(key)
            elif type(fact).__name__ == "CompensationSucceeded" or (
                step in self.definition.pivots and before[step].unknown
            ):
                self.participant.undo_by_hand(key)

    @rule(keep_ms=st.sampled_from([0, 100, 5_000]))
    def signal(self, keep_ms: int) -> None:
        self.happens(Signal(cause=self.cause("signal"), name="approve", payload=opened(), keep_ms=keep_ms))

    @rule(
        what=st.sampled_from([Refused.COMMAND, Refused.COMPENSATION, Refused.EVENT, Refused.RESULT]), address=addresses
    )
    def breaks(self, what: Refused, address: Address | None) -> None:
        """From now on the broker refuses one record; until the next time, when all is mended."""
        alone = what in (Refused.EVENT, Refused.RESULT)
        self.broken = frozenset() if self.broken else frozenset({(what, None if alone else address)})

    @rule()
    def too_large(self) -> None:
        """A record comes that cannot be recorded: the saga waits for a person."""
        refusal = Refusal(target=Refused.INPUT, address=None, reason="too large")
        self.happens(Signal(cause=self.cause("signal"), name="approve", payload=None, keep_ms=100, refusals=(refusal,)))

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
                self.happens_by_hand(control)
        raise AssertionError(f"nothing that an operator does ends this saga: {self.state}")

    def remedies(self, saga: Saga) -> list[Control]:
        def by_hand(verb: Verb, address: Address | None) -> Control:
            return Control(cause=self.cause("control", "kim"), verb=verb, address=address)

        parked = [a for a, step in saga.steps.items() if step.status in (StepStatus.PARKED, StepStatus.UNDO_PARKED)]
        if not parked and end_reached(self.definition, saga) is not None:
            return [by_hand(Verb.SKIP, None)]
        if saga.parked is not None:
            return [by_hand(Verb.RETRY, None)]
        payloads = [opened(f"shop.Done{address}", REPLY) for address in parked]
        return [
            replace(by_hand(Verb.SKIP, address), payload=payload)
            for address, payload in zip(parked, payloads, strict=True)
        ]


TestWorld = World.TestCase
TestWorld.settings = settings(stateful_step_count=40)
