"""What a decision asks the orchestrator to send. Data only: encoding comes after `decide`."""

from dataclasses import dataclass
from typing import TypeAlias

from sagakit.core.address import Address
from sagakit.core.events import ReplyTo, TraceContext
from sagakit.core.transitions import Direction
from sagakit.core.values import Data


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCommand:
    """A command to the service's topic.

    `causation_id` is the id of the message that caused it. `undoes` (compensations only) is the idempotency key of the
    forward step. A participant that has not begun by `expires_at_ms` answers that it expired.
    """

    saga_id: str
    run: int
    address: Address
    direction: Direction
    attempt: int
    command_id: str
    idempotency_key: str
    undoes: str | None
    service: str
    type: str
    data: Data
    expires_at_ms: int
    causation_id: str
    trace: TraceContext | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishEvent:
    """A domain event of the saga's end, keyed by the business key; `topic` is without the namespace prefix."""

    saga_id: str
    event_id: str
    type: str
    topic: str
    key: str
    data: Data
    causation_id: str
    trace: TraceContext | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """How the saga ended, for the one who asked for it in the start."""

    saga_id: str
    run: int
    event_id: str
    definition: str
    key: str
    end: str
    reply_to: ReplyTo
    causation_id: str
    trace: TraceContext | None


Action: TypeAlias = SendCommand | PublishEvent | SendResult
