"""Pieces that several of sagakit's own records share: from the core's values to the wire (`put_…`) and back (`…_of`).

For records that fastavro writes there are fields too. A nullable record is then `(full name, fields)`, so that it need
not try whether the fields fit.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from sagakit.contracts.binary import (
    NULL,
    SOME,
    Parts,
    name,
    put_bytes,
    put_long,
    put_optional_name,
    put_optional_string,
    put_string,
)
from sagakit.contracts.payload import PayloadCodec
from sagakit.core.address import Address
from sagakit.core.events import ReplyTo, TraceContext
from sagakit.core.transitions import Failure, FailureKind
from sagakit.core.values import Data, Opened, Payload

Fields: TypeAlias = dict[str, Any]
Raw: TypeAlias = Mapping[str, Any]
Optional: TypeAlias = tuple[str, Fields] | None
"""A nullable record on its way to the wire."""


def put_payload(parts: Parts, payload: Payload) -> None:
    """A `sagakit.Payload`."""
    put_bytes(parts, payload.framed)
    parts.append(name(payload.encoding))
    put_optional_string(parts, payload.key_id)


def put_optional_payload(parts: Parts, payload: Payload | None) -> None:
    """A payload that may be missing."""
    if payload is None:
        parts.append(NULL)
    else:
        parts.append(SOME)
        put_payload(parts, payload)


def payload_fields(payload: Payload) -> Fields:
    """The fields of `sagakit.Payload`."""
    return {"framed": payload.framed, "encoding": payload.encoding, "key_id": payload.key_id}


def payload_of(raw: Raw) -> Payload:
    """The payload of `sagakit.Payload`."""
    return Payload(framed=raw["framed"], encoding=raw["encoding"], key_id=raw["key_id"])


def optional_payload(payload: Payload | None) -> Optional:
    """A payload that may be missing."""
    return None if payload is None else ("sagakit.Payload", payload_fields(payload))


def optional_payload_of(raw: Raw | None) -> Payload | None:
    """A payload that may be missing."""
    return None if raw is None else payload_of(raw)


def put_opened(parts: Parts, opened: Opened | None) -> None:
    """The payload that was opened, if there is one; its data is not stored beside it."""
    put_optional_payload(parts, None if opened is None else opened.payload)


def opened_of(raw: Raw | None, payloads: PayloadCodec) -> Opened | None:
    """A payload that may be missing, opened; errors as `PayloadCodec.open`."""
    return None if raw is None else payloads.open(payload_of(raw))


def put_sealed(parts: Parts, data: Data, payloads: PayloadCodec) -> None:
    """Derived data, sealed; errors as `PayloadCodec.seal`."""
    put_payload(parts, payloads.seal(data))


def sealed_of(raw: Raw, payloads: PayloadCodec) -> Data:
    """Derived data, opened; errors as `PayloadCodec.open`."""
    return payloads.open(payload_of(raw)).data


def put_trace(parts: Parts, trace: TraceContext | None) -> None:
    """A `sagakit.TraceContext`, if there is one."""
    if trace is None:
        parts.append(NULL)
    else:
        parts.append(SOME)
        put_string(parts, trace.traceparent)
        put_optional_string(parts, trace.tracestate)


def trace_of(raw: Raw | None) -> TraceContext | None:
    """The trace context of `sagakit.TraceContext`."""
    return None if raw is None else TraceContext(traceparent=raw["traceparent"], tracestate=raw["tracestate"])


def put_reply_to(parts: Parts, reply_to: ReplyTo | None) -> None:
    """A `sagakit.ReplyTo`, if there is one."""
    if reply_to is None:
        parts.append(NULL)
    else:
        parts.append(SOME)
        parts.append(name(reply_to.topic))
        put_long(parts, reply_to.partition)


def reply_to_fields(reply_to: ReplyTo | None) -> Optional:
    """The fields of `sagakit.ReplyTo`."""
    return None if reply_to is None else ("sagakit.ReplyTo", {"topic": reply_to.topic, "partition": reply_to.partition})


def reply_to_of(raw: Raw | None) -> ReplyTo | None:
    """The address of `sagakit.ReplyTo`."""
    return None if raw is None else ReplyTo(topic=raw["topic"], partition=raw["partition"])


def put_failure(parts: Parts, failure: Failure) -> None:
    """A `sagakit.Failure`."""
    put_optional_name(parts, failure.step)
    parts.append(name(failure.kind.value))
    put_optional_string(parts, failure.code)
    put_optional_string(parts, failure.message)


def failure_of(raw: Raw) -> Failure:
    """The failure of `sagakit.Failure`.

    Raises:
        ValueError: if its kind or its address is unknown to this release.
    """
    return Failure(
        step=address_of(raw["step"]), kind=FailureKind(raw["kind"]), code=raw["code"], message=raw["message"]
    )


@lru_cache(maxsize=4096)
def parsed_address(raw: str) -> Address:
    """A step address; remembered, since a definition has few.

    Raises:
        InvalidAddressError: if it is none.
    """
    return Address.parse(raw)


def address_of(raw: str | None) -> Address | None:
    """A step address that may be missing.

    Raises:
        InvalidAddressError: if it is none.
    """
    return None if raw is None else parsed_address(raw)
