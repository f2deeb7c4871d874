"""What an event does to a saga. Total: every event has an answer, and every answer is in the transitions.

`decide` is the whole engine; the orchestrator, the simulation, replay and what-if are the same call. An event that the
state does not allow is recorded as ignored, with the reason; it is never an exception and never silent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

from sagakit.core import transitions as t
from sagakit.core.actions import Action
from sagakit.core.controls import control
from sagakit.core.definition import Again, Definition
from sagakit.core.events import (
    Control,
    Event,
    Now,
    Refusal,
    Refused,
    Reply,
    Signal,
    Start,
    TimerDue,
    Undecodable,
)
from sagakit.core.progress import park, proceed
from sagakit.core.replies import reply
from sagakit.core.schedule import is_due
from sagakit.core.state import Early, End, KeptSignal, Marker, Saga, State
from sagakit.core.timers import timer_due
from sagakit.core.transitions import Transition
from sagakit.core.turn import ENGINE_LEVEL, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from one event: the transitions, what is to be sent, and the state after them.

    `state` is the fold of the transitions over the state before; `Early` and an expired marker's end stand outside it.
    """

    transitions: tuple[Transition, ...]
    actions: tuple[Action, ...]
    state: State | None


def decide(
    saga_id: str,
    definition: Definition | None,
    state: State | None,
    event: Event,
    now: Now,
    level: int = ENGINE_LEVEL,
) -> Decision:
    """Decide one event.

    Args:
        saga_id: the saga that the event is for.
        definition: the version that the live saga runs; for a start, the version to run; None where no saga is live.
        state: the saga's state before the event.
        event: what happened.
        now: the two times of this decision.
        level: the engine level of a run that begins: its namespace's. One that runs keeps its own.
    """
    turn = Turn(saga_id, definition, state, event, now, level)
    live = isinstance(state, Saga)
    unrecordable = turn.refusal(Refused.INPUT)
    match event:
        case TimerDue() if not is_due(state, now.partition_ms):
            pass
        case Undecodable():
            turn.emit_outside(t.RecordDeadLettered, reason=event.reason, dead_letter_topic=event.dead_letter_topic)
        case _ if unrecordable is not None:
            _unrecordable(turn, event, unrecordable)
        case Start():
            _start(turn, event)
        case Reply() if live:
            reply(turn, event)
        case Control() if live:
            control(turn, event)
        case Reply() | Control():
            _ignore(turn, event, _gone(state))
        case Signal():
            _signal(turn, event)
        case TimerDue():
            timer_due(turn)
        case _:
            assert_never(event)
    proceed(turn)
    return Decision(transitions=tuple(turn.transitions), actions=tuple(turn.actions), state=turn.state)


def _unrecordable(turn: Turn, event: Start | Reply | Control | Signal | TimerDue, refusal: Refusal) -> None:
    """The event itself is too large to be recorded: it is dead-lettered. A live saga that may need it is parked."""
    reason = f"{_UNRECORDABLE}: {refusal.reason}"
    if isinstance(turn.state, Saga) and not isinstance(event, Start):
        turn.emit(t.SendFailed, target=refusal.target.value, reason=refusal.reason)
        park(turn, None, None, reason)
    elif not isinstance(event, TimerDue):
        _ignore(turn, event, reason)


_UNRECORDABLE: Final = "a record for this saga cannot be taken in"

_IGNORED: Final[Mapping[type[Event], type[Transition]]] = {
    Start: t.StartIgnored,
    Reply: t.ReplyIgnored,
    Control: t.ControlIgnored,
    Signal: t.SignalIgnored,
}


def _ignore(turn: Turn, event: Start | Reply | Control | Signal, reason: str) -> None:
    """Record an event that changes nothing, and why: in the run, or outside where no saga is known."""
    fields: dict[str, Any] = {"reason": reason}
    if isinstance(event, Control):
        fields["verb"] = event.verb
    elif isinstance(event, Signal):
        fields["name"] = event.name
    emit = turn.emit if isinstance(turn.state, Saga | Marker) else turn.emit_outside
    emit(_IGNORED[type(event)], **fields)


def _gone(state: State | None) -> str:
    return f"the saga has ended: {state.end.value}" if isinstance(state, Marker) else "no saga with this id is known"


def _start(turn: Turn, event: Start) -> None:
    reason = _why_not(turn, event)
    if reason is not None:
        return _ignore(turn, event, reason)
    early = turn.state.signals if isinstance(turn.state, Early) else ()
    definition = turn.definition
    data = definition.data_of(event.payload)
    lasts_ms = definition.deadline_ms if event.deadline_ms is None else event.deadline_ms
    turn.emit(
        t.SagaStarted,
        key=event.key,
        start={name: data[name] for name in definition.start_keep if name in data},
        deadline_at_ms=None if lasts_ms is None else turn.at_ms + lasts_ms,
    )
    for signal in early:
        turn.emit(
            t.SignalKept,
            name=signal.name,
            message_id=signal.message_id,
            payload=signal.payload,
            expires_at_ms=signal.expires_at_ms,
        )
    return None


def _why_not(turn: Turn, event: Start) -> str | None:
    """Why a start begins no run; None when it does. A marker that has expired in partition time forbids nothing."""
    state, message_id = turn.state, event.cause.message_id
    if isinstance(state, Saga):
        same = state.start_message_id == message_id
        return "this message has started the saga already" if same else "a saga with this key is live"
    if not isinstance(state, Marker) or state.expires_at_ms <= turn.partition_ms:
        return None
    if state.start_message_id == message_id:
        return "this message has started the saga already"
    again = turn.definition.again
    if again is Again.ALWAYS or (again is Again.AFTER_COMPENSATED and state.end is End.COMPENSATED):
        return None
    return f"the saga has ended ({state.end.value}), and the definition says again: {again.value}"


def _signal(turn: Turn, event: Signal) -> None:
    """Keep a signal: in the live saga, or until its saga starts. A signal for an ended one is only recorded."""
    state, message_id = turn.state, event.cause.message_id
    expires_at_ms = turn.at_ms + event.keep_ms
    if isinstance(state, Marker) and state.expires_at_ms > turn.partition_ms:
        return _ignore(turn, event, _gone(state))
    known = () if state is None or isinstance(state, Marker) else state.signals
    if any(signal.message_id == message_id for signal in known):
        return _ignore(turn, event, "this signal is kept already")
    fields: dict[str, Any] = {"name": event.name, "message_id": message_id, "payload": None}
    fields["expires_at_ms"] = expires_at_ms
    if isinstance(state, Saga):
        return turn.emit(t.SignalKept, **fields)
    turn.emit_outside(t.SignalKept, **fields)
    payload = None if event.payload is None else event.payload.payload
    kept = KeptSignal(name=event.name, message_id=message_id, payload=payload, expires_at_ms=expires_at_ms)
    turn.state = Early(saga_id=turn.saga_id, signals=(*known, kept))
    return None
