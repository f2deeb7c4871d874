"""Message headers: CloudEvents 1.0 in Kafka's binary mode, W3C Trace Context, and sagakit's own. All values are text.

`ce_time` is a timestamp (CloudEvents demands RFC 3339); times in sagakit's own headers are epoch milliseconds.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sagakit.contracts import logical
from sagakit.contracts.errors import UndecodableError
from sagakit.core.address import Address, InvalidAddressError
from sagakit.core.events import Outcome, ReplyTo, TraceContext
from sagakit.core.transitions import Direction
from sagakit.ports.log import Headers, Record

SPEC_VERSION: Final = "ce_specversion"
ID: Final = "ce_id"
TYPE: Final = "ce_type"
SOURCE: Final = "ce_source"
TIME: Final = "ce_time"
CORRELATION_ID: Final = "ce_correlationid"
CAUSATION_ID: Final = "ce_causationid"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

IDEMPOTENCY_KEY: Final = "sagakit_idempotency_key"
UNDOES: Final = "sagakit_undoes"
KEY: Final = "sagakit_key"
RUN: Final = "sagakit_run"
ADDRESS: Final = "sagakit_address"
ATTEMPT: Final = "sagakit_attempt"
EXPIRES_AT: Final = "sagakit_expires_at"
REPLY_TOPIC: Final = "sagakit_reply_topic"
REPLY_PARTITION: Final = "sagakit_reply_partition"
OUTCOME: Final = "sagakit_outcome"

DUE: Final = "sagakit_due"
"""On state records: when the earliest timer is due."""
TRANSACTIONAL_ID: Final = "sagakit_transactional_id"
"""On state records: the producer that wrote it, so that a new owner can fence it."""

REASON: Final = "sagakit_reason"
SOURCE_TOPIC: Final = "sagakit_source_topic"
SOURCE_PARTITION: Final = "sagakit_source_partition"
SOURCE_OFFSET: Final = "sagakit_source_offset"
SOURCE_TIMESTAMP: Final = "sagakit_source_timestamp"
CUT_LENGTH: Final = "sagakit_cut_length"
"""On a dead letter whose value did not fit: the whole value's length in bytes."""
CUT_SHA256: Final = "sagakit_cut_sha256"
"""On a dead letter whose value did not fit: the whole value's SHA-256, in hexadecimal."""

_VERSION: Final = (SPEC_VERSION, b"1.0")
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What every message says of itself, besides its type and its saga.

    `source` is a URI reference that says who sends (`orchestrator_source`, `service_source`), `at_ms` when, in epoch
    milliseconds.
    """

    message_id: str
    source: str
    at_ms: int
    causation_id: str | None = None
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandHeaders:
    """What the headers of a command say. `undoes` stands on compensations only; `key` is the saga's business key."""

    saga_id: str
    key: str | None
    run: int
    address: Address
    attempt: int
    command_id: str
    type: str
    idempotency_key: str
    undoes: str | None
    expires_at_ms: int
    reply_to: ReplyTo
    causation_id: str | None
    trace: TraceContext | None

    @property
    def direction(self) -> Direction:
        """Whether the command goes forward or undoes a step."""
        return Direction.FORWARD if self.undoes is None else Direction.COMPENSATION


def orchestrator_source(namespace: str) -> str:
    """The `ce_source` of what the orchestrator sends."""
    return f"/sagakit/{namespace}"


def service_source(service: str) -> str:
    """The `ce_source` of what a service sends."""
    return f"/services/{service}"


# Writing -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _time_header(at_ms: int) -> tuple[str, bytes]:
    """`ce_time`; what is decided in one cycle was decided at one time, so most messages share it."""
    return TIME, logical.timestamp_text(at_ms, 3).encode()


def message_headers(envelope: Envelope, type_: str, saga_id: str | None) -> list[tuple[str, bytes]]:
    """The headers of any message; `type_` is the full name of its record."""
    headers = [
        _VERSION,
        (ID, envelope.message_id.encode()),
        (TYPE, type_.encode()),
        (SOURCE, envelope.source.encode()),
        _time_header(envelope.at_ms),
    ]
    if saga_id is not None:
        headers.append((CORRELATION_ID, saga_id.encode()))
    if envelope.causation_id is not None:
        headers.append((CAUSATION_ID, envelope.causation_id.encode()))
    trace = envelope.trace
    if trace is not None:
        headers.append((TRACEPARENT, trace.traceparent.encode()))
        if trace.tracestate is not None:
            headers.append((TRACESTATE, trace.tracestate.encode()))
    return headers


# Reading -------------------------------------------------------------------------------------------------------------


def last_values(headers: Headers) -> Mapping[str, bytes | None]:
    """Headers by name; where a name comes twice the last one counts, as in Kafka's own clients.

    Kafka knows headers without a value; they are read as missing.
    """
    return dict(headers)


def optional_text(headers: Mapping[str, bytes | None], name: str) -> str | None:
    """The text of a header that may be missing.

    Raises:
        UndecodableError: it is not UTF-8.
    """
    value = headers.get(name)
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        raise UndecodableError(f"the header {name} is not UTF-8") from error


def required_text(headers: Mapping[str, bytes | None], name: str) -> str:
    """The text of a header.

    Raises:
        UndecodableError: it is missing, empty or not UTF-8.
    """
    text = optional_text(headers, name)
    if not text:
        raise UndecodableError(f"the header {name} is missing")
    return text


def required_integer(headers: Mapping[str, bytes | None], name: str) -> int:
    """The integer of a header.

    Raises:
        UndecodableError: it is missing or no integer of 64 bits.
    """
    text = required_text(headers, name)
    if _INTEGER.fullmatch(text) is None or not -(1 << 63) <= int(text) < 1 << 63:
        raise UndecodableError(f"the header {name} is not an integer")
    return int(text)


def trace_context(headers: Mapping[str, bytes | None]) -> TraceContext | None:
    """The trace context; a malformed one is ignored (W3C Trace Context, "Processing model")."""
    parent = headers.get(TRACEPARENT)
    if parent is None or _TRACEPARENT.fullmatch(parent) is None:
        return None
    state = headers.get(TRACESTATE)
    try:
        return TraceContext(traceparent=parent.decode(), tracestate=None if state is None else state.decode())
    except UnicodeDecodeError:
        return TraceContext(traceparent=parent.decode("ascii", "ignore"))


def message_id(record: Record, headers: Mapping[str, bytes | None]) -> str:
    """The id of a message: `ce_id`, or where it was read if it has none, which is as unique.

    Raises:
        UndecodableError: the id is not UTF-8.
    """
    return optional_text(headers, ID) or f"{record.topic}/{record.partition}/{record.offset}"


def read_outcome(headers: Mapping[str, bytes | None]) -> Outcome:
    """The outcome of a reply.

    Raises:
        UndecodableError: it is missing or unknown.
    """
    text = required_text(headers, OUTCOME)
    try:
        return Outcome(text)
    except ValueError as error:
        raise UndecodableError(f"the header {OUTCOME} is {text!r}, which is none of the outcomes") from error


def read_command_headers(record: Record) -> CommandHeaders:
    """What the headers of a command say.

    Raises:
        UndecodableError: a header is missing or malformed, so that there is nobody to reply to.
    """
    headers = last_values(record.headers)
    address = required_text(headers, ADDRESS)
    partition = required_integer(headers, REPLY_PARTITION)
    if not 0 <= partition < 1 << 31:
        raise UndecodableError(f"the header {REPLY_PARTITION} is not a partition")
    try:
        parsed = Address.parse(address)
    except InvalidAddressError as error:
        raise UndecodableError(f"the header {ADDRESS}: {error}") from error
    return CommandHeaders(
        saga_id=required_text(headers, CORRELATION_ID),
        key=optional_text(headers, KEY),
        run=required_integer(headers, RUN),
        address=parsed,
        attempt=required_integer(headers, ATTEMPT),
        command_id=required_text(headers, ID),
        type=required_text(headers, TYPE),
        idempotency_key=required_text(headers, IDEMPOTENCY_KEY),
        undoes=optional_text(headers, UNDOES),
        expires_at_ms=required_integer(headers, EXPIRES_AT),
        reply_to=ReplyTo(topic=required_text(headers, REPLY_TOPIC), partition=partition),
        causation_id=optional_text(headers, CAUSATION_ID),
        trace=trace_context(headers),
    )
