"""What a saga's transitions fold to: the snapshot, and what is left of it afterwards.

A saga id has exactly one of three kinds of state, or none: a live `Saga`, the `Marker` of an ended one, or the `Early`
signals of one that has not started.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from sagakit.core.address import Address
from sagakit.core.events import ReplyTo, TraceContext
from sagakit.core.transitions import Failure
from sagakit.core.values import Data, Payload


class Status(Enum):
    """Which way a live saga goes. Whether it waits for a person stands beside it (`Saga.parked`)."""

    RUNNING = "running"
    COMPENSATING = "compensating"


class StepStatus(Enum):
    """Where one step stands. A step that was not reached yet has no state at all."""

    # Members are singletons, compared by identity: so may be their hash, which is asked for at each look at a step.
    __hash__ = object.__hash__

    IN_FLIGHT = "in-flight"
    BACKING_OFF = "backing-off"
    PARKED = "parked"
    SKIPPED = "skipped"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDO_BACKING_OFF = "undo-backing-off"
    UNDO_PARKED = "undo-parked"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a live saga.

    Attributes:
        attempt: the last forward attempt, from 1; 0 when none was made.
        budget_from: the attempt before the first of the present budget (an operator's retry begins a new one).
        unknown: forward attempts that may have happened: sent and neither answered nor known to have had no effect.
        undo_attempt: the last attempt to compensate, from 1; 0 when none was made.
        undo_budget_from: as `budget_from`, for compensation.
        due_at_ms: when the attempt in flight times out or the pause ends; None when nothing is awaited.
    """

    status: StepStatus
    attempt: int = 0
    budget_from: int = 0
    unknown: tuple[int, ...] = ()
    undo_attempt: int = 0
    undo_budget_from: int = 0
    due_at_ms: int | None = None

    @property
    def may_have_happened(self) -> bool:
        """Whether some attempt took effect or may have; holds for a step that is settled."""
        return self.status is StepStatus.SUCCEEDED or bool(self.unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSignal:
    """A signal that is waiting to be waited for."""

    name: str
    message_id: str
    payload: Payload | None
    expires_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Saga:
    """A live saga: the snapshot.

    `data` holds what expressions read: `start`, and each succeeded step's kept reply fields under the step's name.
    `steps` holds the steps that were reached, by address, in the order in which they were reached. `parked` is the
    reason why the saga as a whole waits for a person (single steps may be parked beside it).
    """

    saga_id: str
    run: int
    seq: int
    definition: str
    version: int
    engine_level: int
    key: str
    status: Status
    at_ms: int
    deadline_at_ms: int | None
    start_message_id: str
    data: Data
    steps: Mapping[Address, Step]
    failure: Failure | None = None
    parked: str | None = None
    reply_to: ReplyTo | None = None
    trace: TraceContext | None = None
    signals: tuple[KeptSignal, ...] = ()


class End(Enum):
    """How a saga ended."""

    COMPLETED = "completed"
    COMPENSATED = "compensated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What is left of an ended saga for the dedupe window: enough to ignore redelivered starts and late replies."""

    saga_id: str
    run: int
    seq: int
    definition: str
    version: int
    engine_level: int
    end: End
    at_ms: int
    start_message_id: str
    expires_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """Signals that came before their saga."""

    saga_id: str
    signals: tuple[KeptSignal, ...]


State: TypeAlias = Saga | Marker | Early
