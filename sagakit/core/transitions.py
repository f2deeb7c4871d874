"""The facts of the backlog: one record type per kind, a common header first.

A transition says what was decided and carries whatever `decide` was given and cannot derive again; `evolve` folds it
into the state and evaluates nothing.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from sagakit.core.address import Address
from sagakit.core.events import Cause, Event, TraceContext, Verb
from sagakit.core.values import Data, Payload


class Direction(Enum):
    """Whether a command goes forward or undoes a step."""

    FORWARD = "forward"
    COMPENSATION = "compensation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What every transition says of itself.

    `at_ms` is the decision time, never going back within a saga; `partition_ms` the partition time. A record that no
    saga is known for has no `run` and `seq` (nor definition, version, engine level) and stands outside every fold.
    """

    saga_id: str
    run: int | None
    seq: int | None
    at_ms: int
    partition_ms: int
    definition: str | None
    version: int | None
    engine_level: int | None
    step: Address | None = None
    direction: Direction | None = None
    attempt: int | None = None
    cause: Cause
    trace: TraceContext | None = None


class FailureKind(Enum):
    """Why a saga turned back, or what a step failed of."""

    REJECTED = "rejected"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    EXPIRED = "expired"
    MAPPING = "mapping"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The first failure of a run: what expressions read as `failure.step/kind/code/message`."""

    step: Address | None
    kind: FailureKind
    code: str | None
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transition:
    header: Header
    input: Event | None = None
    """The event that caused this transition and those after it with the same cause; None on the others."""


# The life of a saga -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaStarted(_Transition):
    """A run began. `start` holds the fields of the start record that expressions read."""

    key: str
    start: Data
    deadline_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartIgnored(_Transition):
    """A start that begins no run: the key is live, or ended and not to run again, or the message was seen before."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaTurnedBack(_Transition):
    """Nothing new starts; what is in flight is awaited; then whatever may have taken effect is undone."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnBackAbandoned(_Transition):
    """The pivot succeeded while a cancel or a deadline waited for it: past the pivot there is no way back."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaParked(_Transition):
    """The saga needs a person: at the step in the header, or (no step) as a whole."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaUnparked(_Transition):
    """An operator had a parked step (in the header) or the parked saga go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaCompleted(_Transition):
    """Every step succeeded or was skipped. The marker expires at `marker_expires_at_ms`, in partition time."""

    marker_expires_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaCompensated(_Transition):
    """Whatever may have taken effect was undone. The marker expires at `marker_expires_at_ms`, in partition time."""

    marker_expires_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed(_Transition):
    """The saga's deadline came: before the pivot it turns the saga back, later it is only recorded."""


# Steps forward ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StepScheduled(_Transition):
    """A command was decided: its data, and when its attempt times out (`due_at_ms`, also the command's expiry)."""

    command_id: str
    data: Data
    due_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped(_Transition):
    """The step's condition is false: it is settled without a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSucceeded(_Transition):
    """The step took effect. `kept` holds the fields of the reply that expressions read."""

    kept: Data


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRejected(_Transition):
    """A participant refused: a known no-effect, of this attempt only. `declared`: the definition names the code."""

    code: str
    message: str | None
    declared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed(_Transition):
    """A participant failed at this attempt: it may have happened."""

    kind: str
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepExpired(_Transition):
    """A participant had not begun this attempt before its expiry: a known no-effect, of this attempt only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimedOut(_Transition):
    """No reply in time: this attempt may have happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRetryScheduled(_Transition):
    """The next attempt is due at `due_at_ms`."""

    due_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGivenUp(_Transition):
    """No further attempt is made: the attempts are used up, or the saga turned back during a pause."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFailed(_Transition):
    """An expression has no value: never retried. `field` is what was to be computed."""

    field: str
    expression: str
    column: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFailed(_Transition):
    """A decided record cannot be encoded or is refused by the broker, so it was not sent."""

    target: str
    reason: str


# Compensations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensationScheduled(_Transition):
    """A compensation was decided. `undoes` is the idempotency key of the forward step whose effect it undoes."""

    command_id: str
    undoes: str
    data: Data
    due_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensationSucceeded(_Transition):
    """The step's effect, if there was one, is undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensationRejected(_Transition):
    """A participant refuses to undo: a person has to look at it."""

    code: str
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensationFailed(_Transition):
    """A participant failed at this attempt to undo."""

    kind: str
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensationExpired(_Transition):
    """A participant had not begun this attempt to undo before its expiry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensationTimedOut(_Transition):
    """No reply to this attempt to undo in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensationRetryScheduled(_Transition):
    """The next attempt to undo is due at `due_at_ms`."""

    due_at_ms: int


# Signals, controls, and what was only recorded ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalKept(_Transition):
    """A signal that nothing waits for yet is kept: by the saga, or (no run) until its saga starts.

    `payload` is set where the signal came before the saga; otherwise it stands in the input.
    """

    name: str
    message_id: str
    payload: Payload | None
    expires_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalExpired(_Transition):
    """A kept signal that no saga came for."""

    name: str
    message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalIgnored(_Transition):
    """A signal that changes nothing, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested(_Transition):
    """An operator asked to cancel the saga, who and why in the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlIgnored(_Transition):
    """A control that the saga's state does not allow, and why."""

    verb: Verb
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyIgnored(_Transition):
    """A late, duplicate or foreign reply: it changes nothing but this record."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDeadLettered(_Transition):
    """A record that can never be read, or not be recorded; its raw bytes are in the dead-letter topic."""

    reason: str
    dead_letter_topic: str


Transition: TypeAlias = (
    SagaStarted
    | StartIgnored
    | SagaTurnedBack
    | TurnBackAbandoned
    | SagaParked
    | SagaUnparked
    | SagaCompleted
    | SagaCompensated
    | DeadlinePassed
    | StepScheduled
    | StepSkipped
    | StepSucceeded
    | StepRejected
    | StepFailed
    | StepExpired
    | StepTimedOut
    | StepRetryScheduled
    | StepGivenUp
    | MappingFailed
    | SendFailed
    | CompensationScheduled
    | CompensationSucceeded
    | CompensationRejected
    | CompensationFailed
    | CompensationExpired
    | CompensationTimedOut
    | CompensationRetryScheduled
    | SignalKept
    | SignalExpired
    | SignalIgnored
    | CancelRequested
    | ControlIgnored
    | ReplyIgnored
    | RecordDeadLettered
)
