"""What a handler is told about the message in its hands."""

from dataclasses import dataclass
from typing import Any, Literal

import structlog

from sagakit.core.events import Source, TraceContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """About a command.

    `idempotency_key` is what an effect is deduplicated by: it is the same for every redelivery and retry of the step,
    while `command_id` and `attempt` (from 1) are not. `undoes` (compensations only) is the idempotency key of the
    step to undo; find the effect by it, and where there is none, make sure that the late command finds that out.
    `key` is the saga's business key, for people to find it by; None where the sender does not tell.
    Nobody waits for the reply after `expires_at_ms` (epoch milliseconds).
    """

    service: str
    saga_id: str
    key: str | None
    run: int
    address: str
    direction: Literal["forward", "compensation"]
    attempt: int
    command_id: str
    idempotency_key: str
    undoes: str | None
    correlation_id: str
    expires_at_ms: int
    trace: TraceContext | None
    source: Source

    @property
    def logger(self) -> Any:
        """A structlog logger that says with each line which saga (also by business key), step, attempt and trace."""
        return structlog.get_logger("sagakit.service").bind(
            service=self.service,
            saga_id=self.saga_id,
            business_key=self.key,
            step=self.address,
            direction=self.direction,
            attempt=self.attempt,
            command_id=self.command_id,
            **_trace_of(self.trace),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventContext:
    """About a domain event.

    `event_id` is the same for every delivery of the event: deduplicate by it. An event of a publisher that sends no
    CloudEvents headers has its topic, partition and offset as its id. `attempt` counts the tries in place, from 1.
    """

    service: str
    event_id: str
    type: str
    key: str | None
    attempt: int
    correlation_id: str | None
    causation_id: str | None
    trace: TraceContext | None
    source: Source

    @property
    def logger(self) -> Any:
        """A structlog logger that says with each line which event, saga and trace it is about."""
        return structlog.get_logger("sagakit.service").bind(
            service=self.service,
            event_id=self.event_id,
            event_type=self.type,
            business_key=self.key,
            saga_id=self.correlation_id,
            attempt=self.attempt,
            **_trace_of(self.trace),
        )


def _trace_of(trace: TraceContext | None) -> dict[str, str]:
    trace_id = None if trace is None else trace.trace_id
    return {} if trace_id is None else {"trace_id": trace_id}
