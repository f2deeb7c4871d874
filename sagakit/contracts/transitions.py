"""Transitions as records of the backlog, one record type a kind, and back, without loss.

Everything that `decide` was given is written as it came: a received payload as its original bytes, derived data as
sealed values. Fields are written one by one, without reflection: this runs eight times a saga.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final, TypeAlias, get_args

from sagakit.contracts.binary import (
    NULL,
    SOME,
    Parts,
    branch,
    name,
    put_array,
    put_boolean,
    put_long,
    put_optional_long,
    put_optional_name,
    put_optional_string,
    put_string,
)
from sagakit.contracts.errors import UndecodableError, UnencodableError
from sagakit.contracts.own import OwnRecord, OwnRecords
from sagakit.contracts.parts import (
    address_of,
    failure_of,
    opened_of,
    optional_payload_of,
    put_failure,
    put_opened,
    put_optional_payload,
    put_reply_to,
    put_sealed,
    put_trace,
    reply_to_of,
    sealed_of,
    trace_of,
)
from sagakit.contracts.payload import PayloadCodec
from sagakit.core import transitions as kinds
from sagakit.core.events import (
    Cause,
    Control,
    Event,
    Outcome,
    Refusal,
    Refused,
    Reply,
    Signal,
    Source,
    Start,
    TimerDue,
    Undecodable,
    Verb,
)
from sagakit.core.transitions import Direction, Header, Transition

_Write: TypeAlias = Callable[[Parts, Any, PayloadCodec], None]
_Read: TypeAlias = Callable[[Any, PayloadCodec], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownKind:
    """A transition of a kind that this release does not know: its name and its fields, as they stand in the record."""

    name: str
    fields: Mapping[str, Any]


def encode_transition(
    transition: Transition, namespace: str, own: OwnRecords, payloads: PayloadCodec
) -> tuple[bytes, bytes]:
    """The key and the value of a transition's record in the backlog.

    Raises:
        UnencodableError: its data is not made of JSON values, or a number is beyond 64 bits.
    """
    header, event = transition.header, transition.input
    kind = type(transition)
    parts = [own.prefix(kind.__name__)]
    try:
        _put_header(parts, header, namespace)
        if event is None:
            parts.append(NULL)
        else:
            _put_input(parts, event, header.cause)
        for field, put, _ in _OWN_FIELDS[kind]:
            put(parts, getattr(transition, field), payloads)
    except OverflowError as error:
        raise UnencodableError(kind.__name__, (), str(error)) from error
    return backlog_key(transition).encode(), b"".join(parts)


def decode_transition(value: bytes, own: OwnRecords, payloads: PayloadCodec) -> tuple[str, Transition] | UnknownKind:
    """The namespace and the transition that a record of the backlog holds; `UnknownKind` for one of a later release.

    Raises:
        UndecodableError: the bytes are no record of sagakit, or a payload in them cannot be opened.
        RegistryUnavailableError: a schema is not known yet and the registry does not answer.
    """
    record = own.decode(value)
    kind = _KINDS.get(record.name)
    if kind is None:
        return UnknownKind(name=record.name, fields=record.fields)
    try:
        return _transition_of(kind, record, payloads)
    except ValueError as error:  # an enum's value or an address that this release does not know
        raise UndecodableError(f"a {record.name} that cannot be read: {error}") from error


def backlog_key(transition: Transition) -> str:
    """`<saga id>/<run>/<seq>`; outside a run `<saga id>/orphan/` and its cause, so that no record replaces another."""
    header = transition.header
    if header.run is not None and header.seq is not None:
        return f"{header.saga_id}/{header.run}/{header.seq}"
    source = header.cause.source
    if source is not None:
        return f"{header.saga_id}/orphan/{source.topic}/{source.partition}-{source.offset}"
    message_id = getattr(
        transition, "message_id", header.cause.message_id
    )  # a signal that expired: one timer ends many
    return f"{header.saga_id}/orphan/{message_id}/{header.at_ms}"


def _transition_of(kind: type[Transition], record: OwnRecord, payloads: PayloadCodec) -> tuple[str, Transition]:
    raw = record.fields
    header = _header_of(raw["header"])
    event = None if raw["input"] is None else _input_of(raw["input"], header.cause, payloads)
    own_fields = {name: raw[name] if read is None else read(raw[name], payloads) for name, _, read in _OWN_FIELDS[kind]}
    return raw["header"]["namespace"], kind(header=header, input=event, **own_fields)


# Single fields -------------------------------------------------------------------------------------------------------


def _put_name(parts: Parts, text: str) -> None:
    parts.append(name(text))


def _put_member(parts: Parts, member: Enum) -> None:
    parts.append(name(member.value))


def _alone(put: Callable[[Parts, Any], None]) -> _Write:
    """A writer that needs no codec, in the form of one that does."""
    return lambda parts, value, _: put(parts, value)


# The header ----------------------------------------------------------------------------------------------------------


def _put_header(parts: Parts, header: Header, namespace: str) -> None:
    parts.append(name(namespace))
    put_string(parts, header.saga_id)
    put_optional_long(parts, header.run)
    put_optional_long(parts, header.seq)
    put_long(parts, header.at_ms)
    put_long(parts, header.partition_ms)
    put_optional_name(parts, header.definition)
    put_optional_long(parts, header.version)
    put_optional_long(parts, header.engine_level)
    put_optional_name(parts, header.step)
    put_optional_name(parts, None if header.direction is None else header.direction.value)
    put_optional_long(parts, header.attempt)
    _put_cause(parts, header.cause)
    put_trace(parts, header.trace)


def _header_of(raw: Mapping[str, Any]) -> Header:
    step, direction = raw["step"], raw["direction"]
    return Header(
        saga_id=raw["saga_id"],
        run=raw["run"],
        seq=raw["seq"],
        at_ms=raw["at_ms"],
        partition_ms=raw["partition_ms"],
        definition=raw["definition"],
        version=raw["version"],
        engine_level=raw["engine_level"],
        step=address_of(step),
        direction=None if direction is None else Direction(direction),
        attempt=raw["attempt"],
        cause=_cause_of(raw["cause"]),
        trace=trace_of(raw["trace"]),
    )


def _put_cause(parts: Parts, cause: Cause) -> None:
    put_string(parts, cause.message_id)
    parts.append(name(cause.type))
    source = cause.source
    if source is None:
        parts.append(NULL)
    else:
        parts.append(SOME)
        parts.append(name(source.topic))
        put_long(parts, source.partition)
        put_long(parts, source.offset)
    put_optional_long(parts, cause.seq)
    put_optional_string(parts, cause.actor)
    put_optional_string(parts, cause.reason)
    put_optional_string(parts, cause.ticket)


def _cause_of(raw: Mapping[str, Any]) -> Cause:
    source = raw["source"]
    return Cause(
        message_id=raw["message_id"],
        type=raw["type"],
        source=None
        if source is None
        else Source(topic=source["topic"], partition=source["partition"], offset=source["offset"]),
        seq=raw["seq"],
        actor=raw["actor"],
        reason=raw["reason"],
        ticket=raw["ticket"],
    )


# The input -----------------------------------------------------------------------------------------------------------


def _put_input(parts: Parts, event: Event, header_cause: Cause) -> None:
    tag, own_fields = _INPUT_FIELDS[type(event)]
    parts.append(tag)
    if event.cause == header_cause:
        parts.append(NULL)
    else:
        parts.append(SOME)
        _put_cause(parts, event.cause)
    put_trace(parts, event.trace)
    put_array(parts, len(event.refusals), event.refusals, _put_refusal)
    for field, put, _ in own_fields:
        put(parts, getattr(event, field))


def _put_refusal(parts: Parts, refusal: Refusal) -> None:
    parts.append(name(refusal.target.value))
    put_optional_name(parts, refusal.address)
    put_string(parts, refusal.reason)


def _input_of(tagged: tuple[str, Mapping[str, Any]], header_cause: Cause, payloads: PayloadCodec) -> Event:
    name, raw = tagged
    kind = _INPUT_KINDS.get(name)
    if kind is None:
        raise UndecodableError(f"the input {name} is unknown")
    own_fields = {
        field: raw[field] if read is None else read(raw[field], payloads) for field, _, read in _INPUT_FIELDS[kind][1]
    }
    refusals = tuple(
        Refusal(target=Refused(one["target"]), address=address_of(one["address"]), reason=one["reason"])
        for one in raw["refusals"]
    )
    cause = header_cause if raw["cause"] is None else _cause_of(raw["cause"])
    return kind(cause=cause, trace=trace_of(raw["trace"]), refusals=refusals, **own_fields)


_InputField: TypeAlias = tuple[str, Callable[[Parts, Any], None], _Read | None]

_INPUTS: Final[tuple[tuple[str, type[Event], tuple[_InputField, ...]], ...]] = (
    (
        "sagakit.StartInput",
        Start,
        (
            ("definition", _put_name, None),
            ("key", put_string, None),
            ("run", put_long, None),
            ("payload", put_opened, opened_of),
            ("reply_to", put_reply_to, lambda raw, _: reply_to_of(raw)),
            ("deadline_ms", put_optional_long, None),
        ),
    ),
    (
        "sagakit.ReplyInput",
        Reply,
        (
            ("command_id", put_string, None),
            ("outcome", _put_member, lambda raw, _: Outcome(raw)),
            ("payload", put_opened, opened_of),
            ("code", put_optional_string, None),
            ("message", put_optional_string, None),
        ),
    ),
    (
        "sagakit.SignalInput",
        Signal,
        (("name", put_string, None), ("payload", put_opened, opened_of), ("keep_ms", put_long, None)),
    ),
    (
        "sagakit.ControlInput",
        Control,
        (
            ("verb", _put_member, lambda raw, _: Verb(raw)),
            ("address", put_optional_name, lambda raw, _: address_of(raw)),
            ("payload", put_opened, opened_of),
        ),
    ),
    ("sagakit.TimerInput", TimerDue, ()),
    ("sagakit.UndecodableInput", Undecodable, (("reason", put_string, None), ("dead_letter_topic", _put_name, None))),
)
"""The kinds of input in the order of the branches of `input`, null being the first, each with its own fields in the
order of its schema: the name, how it is written, how it is read (None: as it is)."""

_INPUT_KINDS: Final[Mapping[str, type[Event]]] = {record: kind for record, kind, _ in _INPUTS}

_INPUT_FIELDS: Final[Mapping[type[Event], tuple[bytes, tuple[_InputField, ...]]]] = {
    kind: (branch(1 + number), own_fields) for number, (_, kind, own_fields) in enumerate(_INPUTS)
}


# The fields of each kind ---------------------------------------------------------------------------------------------

_Conversion: TypeAlias = tuple[_Write, _Read | None]

_AS_IT_IS: Final[Mapping[str, Callable[[Parts, Any], None]]] = {
    "code": put_string,
    "column": put_long,
    "command_id": put_string,
    "dead_letter_topic": _put_name,
    "deadline_at_ms": put_optional_long,
    "declared": put_boolean,
    "due_at_ms": put_long,
    "expires_at_ms": put_long,
    "expression": put_string,
    "field": put_string,
    "key": put_string,
    "kind": put_string,
    "marker_expires_at_ms": put_long,
    "message": put_optional_string,
    "message_id": put_string,
    "name": put_string,
    "reason": put_string,
    "target": put_string,
    "undoes": put_string,
}
"""How the fields are written that are the same on the wire and in the core, by name."""

_SEALED: Final[_Conversion] = (put_sealed, sealed_of)

_CONVERSIONS: Final[Mapping[tuple[type[Transition], str], _Conversion]] = {
    (kinds.SagaStarted, "start"): _SEALED,
    (kinds.StepScheduled, "data"): _SEALED,
    (kinds.StepSucceeded, "kept"): _SEALED,
    (kinds.CompensationScheduled, "data"): _SEALED,
    (kinds.SagaTurnedBack, "failure"): (_alone(put_failure), lambda raw, _: failure_of(raw)),
    (kinds.ControlIgnored, "verb"): (_alone(_put_member), lambda raw, _: Verb(raw)),
    (kinds.SignalKept, "payload"): (_alone(put_optional_payload), lambda raw, _: optional_payload_of(raw)),
    (kinds.MappingFailed, "message"): (_alone(put_string), None),
}
"""The fields of single kinds that have another form on the wire, or another type than others of that name."""

_KINDS: Final[Mapping[str, type[Transition]]] = {kind.__name__: kind for kind in get_args(Transition)}

_OWN_FIELDS: Final[Mapping[type[Transition], tuple[tuple[str, _Write, _Read | None], ...]]] = {
    kind: tuple(
        (one.name, *(_CONVERSIONS.get((kind, one.name)) or (_alone(_AS_IT_IS[one.name]), None)))
        for one in fields(kind)
        if one.name not in ("header", "input")
    )
    for kind in _KINDS.values()
}
"""(name, how it is written, how it is read) of each kind's own fields, in the order of its schema."""
