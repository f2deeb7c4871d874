"""What can happen to a saga: the inputs of `decide`.

The first transition that an event causes carries the event itself, so the backlog alone is enough to decide again.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from sagakit.core.address import Address
from sagakit.core.values import Opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The record that brought an event."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """W3C Trace Context: the two headers as they were received."""

    traceparent: str
    tracestate: str | None = None

    @property
    def trace_id(self) -> str | None:
        """The trace id out of `version-traceid-parentid-flags` (W3C Trace Context); None if it has another form."""
        parts = self.traceparent.split("-")
        return parts[1] if len(parts) >= 4 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a transition happened: the message (id, record type, where it was read) and, for a control, who and why.

    `seq` is the sequence number of the first transition of the same cause; None on that first one itself.
    """

    message_id: str
    type: str
    source: Source | None = None
    seq: int | None = None
    actor: str | None = None
    reason: str | None = None
    ticket: str | None = None


class Refused(Enum):
    """What of a decision could not be written."""

    COMMAND = "command"
    COMPENSATION = "compensation"
    EVENT = "event"
    RESULT = "result"
    INPUT = "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A record of an earlier try at this event that cannot be encoded or that the broker refuses.

    The event is decided again with the refusal in it, so that the park which follows replays too. `INPUT` means that
    the event itself (or the snapshot after it) cannot be recorded: its payload is dead-lettered and left out.
    """

    target: Refused
    address: Address | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    cause: Cause
    trace: TraceContext | None = None
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyTo:
    """Where the one who started a saga awaits its result."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(_Event):
    """Start a saga. `run` is the inbox offset of this record: it tells apart two runs of one saga id.

    `deadline_ms` (a duration) overrides the definition's. `payload` is None only beside a refusal of the input.
    """

    definition: str
    key: str
    run: int
    payload: Opened | None
    reply_to: ReplyTo | None = None
    deadline_ms: int | None = None


class Outcome(Enum):
    """What a participant says of a command.

    Rejected and expired are known to have had no effect; failed is not: the handler may have raised after the effect.
    """

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply(_Event):
    """A participant's reply. `code` is the rejection code or the kind of failure, `message` its text for people."""

    command_id: str
    outcome: Outcome
    payload: Opened | None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal(_Event):
    """Something that a saga waits for, or will wait for. It is kept for `keep_ms` when it comes before its saga."""

    name: str
    payload: Opened | None
    keep_ms: int


class Verb(Enum):
    """What an operator can ask for."""

    CANCEL = "cancel"
    RETRY = "retry"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Control(_Event):
    """An operator's intervention; who and why stand in the cause. `payload` is the reply that `skip` puts in place."""

    verb: Verb
    address: Address | None = None
    payload: Opened | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerDue(_Event):
    """The earliest timer of the saga has come due in partition time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecodable(_Event):
    """A record that can never be read; its raw bytes are in the dead-letter topic `dead_letter_topic`."""

    reason: str
    dead_letter_topic: str


Event: TypeAlias = Start | Reply | Signal | Control | TimerDue | Undecodable


def refusal_of(event: Event, target: Refused, address: Address | None = None) -> Refusal | None:
    """The refusal of this target in an earlier try at the same event, if there was one."""
    for refusal in event.refusals:
        if refusal.target is target and refusal.address == address:
            return refusal
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The two times of a decision, epoch milliseconds.

    `decision_ms` (wall clock) is what due times count from; `partition_ms` (the broker's append time while catching up)
    says only which timers may fire and which markers have expired, so that a reply in the log beats its timeout.
    """

    decision_ms: int
    partition_ms: int
