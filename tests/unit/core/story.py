"""Given / expect prose for one saga: what happens, what follows, and that nothing else was emitted.

    story = Story(definition)
    story.starts().then("SagaStarted", "StepScheduled reserve 1").sends("reserve forward 1").and_nothing_else()

A transition reads `Kind`, the step and the attempt where it has them; a command reads `step direction attempt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from sagakit.core import ids
from sagakit.core.actions import Action, PublishEvent, SendCommand, SendResult
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
    Reply,
    ReplyTo,
    Signal,
    Source,
    Start,
    TimerDue,
    Verb,
)
from sagakit.core.schedule import next_due_ms
from sagakit.core.state import Marker, Saga, State, Step
from sagakit.core.transitions import (
    Direction,
    MappingFailed,
    ReplyIgnored,
    SagaParked,
    SagaTurnedBack,
    SagaUnparked,
    SendFailed,
    Transition,
)
from sagakit.core.values import CONFLUENT, Data, Opened, Payload
from sagakit.proving.invariants import check

START: Data = {"order_id": "o-1", "amount": 30}


def opened(record: str, data: Data | None = None) -> Opened:
    """A payload of a record type, with its data."""
    return Opened(payload=Payload(framed=b"\x00" + record.encode(), encoding=CONFLUENT), type=record, data=data or {})


def line(transition: Transition) -> str:
    """A transition in a few words."""
    header = transition.header
    parts = (type(transition).__name__, header.step, header.attempt)
    return " ".join(str(part) for part in parts if part is not None)


def words(transition: Transition) -> Iterator[str]:
    """What a transition says to people."""
    match transition:
        case SagaTurnedBack(failure=failure):
            yield f"{failure.kind.value}: {failure.message}"
        case MappingFailed(field=name, message=message):
            yield f"{name}: {message}"
        case _:
            for name in ("reason", "message"):
                if (said := getattr(transition, name, None)) is not None:
                    yield said


def order(action: Action) -> str:
    """An action in a few words."""
    match action:
        case SendCommand():
            return f"{action.address} {action.direction.value} {action.attempt}"
        case PublishEvent():
            return f"publish {action.type}"
        case SendResult():
            return f"result {action.end}"


def direction(transition: Transition) -> Direction | None:
    """The direction that a transition about a step has to say: by its kind, and some have either; None where none."""
    kind = type(transition).__name__
    if kind.startswith("Step"):
        return Direction.FORWARD
    if kind.startswith("Compensation"):
        return Direction.COMPENSATION
    either = isinstance(transition, MappingFailed | SendFailed | SagaParked | SagaUnparked | ReplyIgnored)
    return transition.header.direction or Direction.FORWARD if either and transition.header.step else None


@dataclass
class Told:
    """What one event led to; each expectation takes from it what it names, in order."""

    decision: Decision
    lines: list[str]
    orders: list[str]

    def then(self, *lines: str) -> Self:
        """These transitions come next."""
        assert self.lines[: len(lines)] == list(lines), self.lines
        del self.lines[: len(lines)]
        return self

    def sends(self, *orders: str) -> Self:
        """These actions are asked for next."""
        assert self.orders[: len(orders)] == list(orders), self.orders
        del self.orders[: len(orders)]
        return self

    def because(self, text: str) -> Self:
        """Some transition's reason, or message, says so."""
        said = [" ".join(words(fact)) for fact in self.decision.transitions]
        assert any(text in reason for reason in said), said
        return self

    def says(self, *texts: str) -> Self:
        """Exactly this is said to people, in this order."""
        assert [text for fact in self.decision.transitions for text in words(fact)] == list(texts)
        return self

    def and_nothing_else(self) -> Self:
        """Nothing else was emitted."""
        assert (self.lines, self.orders) == ([], [])
        return self


@dataclass
class Story:
    """One saga id, from its first event on. `checked`: every rule of histories is asked after each event."""

    definition: Definition
    now_ms: int = 1_000
    state: State | None = None
    history: list[Transition] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    offset: int = 0
    checked: bool = True
    saga_id: str = ids.saga_id("default", "place-order", "o-1")

    @property
    def saga(self) -> Saga:
        """The live saga."""
        assert isinstance(self.state, Saga)
        return self.state

    @property
    def marker(self) -> Marker:
        """What is left of the ended saga."""
        assert isinstance(self.state, Marker)
        return self.state

    def step(self, name: str) -> Step:
        """The state of a step."""
        return self.saga.steps[Address(name)]

    def decides(self, event: Event, partition_ms: int | None = None) -> Told:
        """An event happens now."""
        now = Now(decision_ms=self.now_ms, partition_ms=self.now_ms if partition_ms is None else partition_ms)
        decision = decide(self.saga_id, self.definition, self.state, event, now)
        self.state = decision.state
        self.history.extend(decision.transitions)
        for fact in decision.transitions:
            assert fact.header.direction is direction(fact), line(fact)
        self.actions.extend(decision.actions)
        if self.checked:
            assert check(self.saga_id, self.history, lambda *_: self.definition) == []
        return Told(decision, [line(fact) for fact in decision.transitions], [order(sent) for sent in decision.actions])

    def cause(self, kind: str, message_id: str | None = None, actor: str | None = None) -> Cause:
        """A cause that was read from the next offset of the inbox."""
        self.offset += 1
        source = Source(topic="saga.inbox", partition=0, offset=self.offset)
        reason = None if actor is None else "the customer called"
        return Cause(
            message_id=message_id or f"{kind}-{self.offset}", type=kind, source=source, actor=actor, reason=reason
        )

    def starts(
        self,
        data: Data | None = None,
        *,
        message_id: str | None = None,
        reply_to: ReplyTo | None = None,
        deadline_ms: int | None = None,
        refusals: tuple[Refusal, ...] = (),
        partition_ms: int | None = None,
    ) -> Told:
        """A start arrives."""
        cause = self.cause("start", message_id)
        event = Start(
            cause=cause,
            refusals=refusals,
            definition=self.definition.name,
            key="o-1",
            run=self.offset,
            payload=opened("shop.OrderPlaced", START if data is None else data),
            reply_to=reply_to,
            deadline_ms=deadline_ms,
        )
        return self.decides(event, partition_ms)

    def replies(
        self,
        name: str,
        outcome: Outcome = Outcome.SUCCEEDED,
        *,
        attempt: int | None = None,
        undo: bool = False,
        payload: Opened | None = None,
        code: str | None = None,
        message: str | None = None,
        refusals: tuple[Refusal, ...] = (),
    ) -> Told:
        """A participant replies to the last command of a step, or to that of an earlier attempt."""
        direction = Direction.COMPENSATION if undo else Direction.FORWARD
        if attempt is None:
            attempt = self.step(name).undo_attempt if undo else self.step(name).attempt
        run = self.saga.run if isinstance(self.state, Saga) else self.marker.run
        event = Reply(
            cause=self.cause("reply"),
            refusals=refusals,
            command_id=ids.command_id(self.saga_id, run, name, direction.value, attempt),
            outcome=outcome,
            payload=payload,
            code=code,
            message=message,
        )
        return self.decides(event)

    def timer(self, refusals: tuple[Refusal, ...] = ()) -> Told:
        """Time passes until the next timer is due, and it fires."""
        assert self.state is not None
        due_ms = next_due_ms(self.state)
        assert due_ms is not None, "no timer is set"
        self.now_ms = max(self.now_ms, due_ms)
        return self.decides(TimerDue(cause=Cause(message_id="timer", type="timer"), refusals=refusals))

    def operator(
        self, verb: Verb, name: str | None = None, payload: Opened | None = None, refusals: tuple[Refusal, ...] = ()
    ) -> Told:
        """An operator intervenes."""
        address = None if name is None else Address(name)
        cause = self.cause("control", actor="kim")
        return self.decides(Control(cause=cause, refusals=refusals, verb=verb, address=address, payload=payload))

    def cancels(self, name: str | None = None) -> Told:
        """An operator cancels."""
        return self.operator(Verb.CANCEL, name)

    def retries(self, name: str | None = None) -> Told:
        """An operator has it tried again."""
        return self.operator(Verb.RETRY, name)

    def skips(self, name: str | None = None, payload: Opened | None = None) -> Told:
        """An operator puts something in a step's place."""
        return self.operator(Verb.SKIP, name, payload)

    def signals(self, name: str = "approve", *, message_id: str | None = None, keep_ms: int = 5_000) -> Told:
        """A signal arrives."""
        cause = self.cause("signal", message_id)
        return self.decides(Signal(cause=cause, name=name, payload=opened("shop.Approved"), keep_ms=keep_ms))
