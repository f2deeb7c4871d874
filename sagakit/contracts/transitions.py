"""Transitions as records of the backlog, one record type a kind, and back, without loss.

Everything that `decide` was given is written as it came: a received payload as its original bytes, derived data as
sealed values. Fields are written one by one, without reflection: this runs eight times a saga.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias, get_args

from sagakit.contracts.errors import UndecodableError
from sagakit.contracts.own import OwnRecord, OwnRecords
from sagakit.contracts.parts import (
    address_of,
    failure_fields,
    failure_of,
    opened_fields,
    opened_of,
    optional_payload,
    optional_payload_of,
    reply_to_fields,
    reply_to_of,
    sealed_fields,
    sealed_of,
    trace_fields,
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

_Write: TypeAlias = Callable[[Any, PayloadCodec], Any]
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
        UnencodableError: its data is not made of JSON values.
    """
    header = transition.header
    record: dict[str, Any] = {
        "header": _header_fields(header, namespace),
        "input": None if transition.input is None else _input_fields(transition.input, header.cause),
    }
    for name, write, _ in _OWN_FIELDS[type(transition)]:
        value = getattr(transition, name)
        record[name] = value if write is None else write(value, payloads)
    return backlog_key(transition).encode(), own.encode(type(transition).__name__, record)


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


# The header ----------------------------------------------------------------------------------------------------------


def _header_fields(header: Header, namespace: str) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "saga_id": header.saga_id,
        "run": header.run,
        "seq": header.seq,
        "at_ms": header.at_ms,
        "partition_ms": header.partition_ms,
        "definition": header.definition,
        "version": header.version,
        "engine_level": header.engine_level,
        "step": header.step,
        "direction": None if header.direction is None else header.direction.value,
        "attempt": header.attempt,
        "cause": _cause_fields(header.cause),
        "trace": trace_fields(header.trace),
    }


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


def _cause_fields(cause: Cause) -> dict[str, Any]:
    source = cause.source
    return {
        "message_id": cause.message_id,
        "type": cause.type,
        "source": None
        if source is None
        else ("sagakit.Source", {"topic": source.topic, "partition": source.partition, "offset": source.offset}),
        "seq": cause.seq,
        "actor": cause.actor,
        "reason": cause.reason,
        "ticket": cause.ticket,
    }


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


def _input_fields(event: Event, header_cause: Cause) -> tuple[str, dict[str, Any]]:
    record: dict[str, Any] = {
        "cause": None if event.cause == header_cause else ("sagakit.Cause", _cause_fields(event.cause)),
        "trace": trace_fields(event.trace),
        "refusals": [
            {"target": refusal.target.value, "address": refusal.address, "reason": refusal.reason}
            for refusal in event.refusals
        ],
    }
    name, own_fields = _INPUT_FIELDS[type(event)]
    for field, write, _ in own_fields:
        value = getattr(event, field)
        record[field] = value if write is None else write(value)
    return name, record


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


_INPUT_CONVERSIONS: Final[Mapping[str, tuple[Callable[[Any], Any] | None, _Read]]] = {
    "payload": (opened_fields, opened_of),
    "reply_to": (reply_to_fields, lambda raw, _: reply_to_of(raw)),
    "outcome": (lambda outcome: outcome.value, lambda raw, _: Outcome(raw)),
    "verb": (lambda verb: verb.value, lambda raw, _: Verb(raw)),
    "address": (None, lambda raw, _: address_of(raw)),
}
"""The fields of inputs that cross the wire in another form than in the core, by name."""

_INPUT_KINDS: Final[Mapping[str, type[Event]]] = {
    "sagakit.StartInput": Start,
    "sagakit.ReplyInput": Reply,
    "sagakit.SignalInput": Signal,
    "sagakit.ControlInput": Control,
    "sagakit.TimerInput": TimerDue,
    "sagakit.UndecodableInput": Undecodable,
}

_INPUT_FIELDS: Final = {
    kind: (
        name,
        tuple(
            (one.name, *_INPUT_CONVERSIONS.get(one.name, (None, None)))
            for one in fields(kind)
            if one.name not in ("cause", "trace", "refusals")
        ),
    )
    for name, kind in _INPUT_KINDS.items()
}
"""(record, (name, how it is written, how it is read) of each own field) of each kind of input."""


# The fields of each kind ---------------------------------------------------------------------------------------------

_Conversion: TypeAlias = tuple[_Write, _Read]

_SEALED: Final[_Conversion] = (sealed_fields, sealed_of)

_CONVERSIONS: Final[Mapping[tuple[type[Transition], str], _Conversion]] = {
    (kinds.SagaStarted, "start"): _SEALED,
    (kinds.StepScheduled, "data"): _SEALED,
    (kinds.StepSucceeded, "kept"): _SEALED,
    (kinds.CompensationScheduled, "data"): _SEALED,
    (kinds.SagaTurnedBack, "failure"): (lambda one, _: failure_fields(one), lambda raw, _: failure_of(raw)),
    (kinds.ControlIgnored, "verb"): (lambda verb, _: verb.value, lambda raw, _: Verb(raw)),
    (kinds.SignalKept, "payload"): (lambda one, _: optional_payload(one), lambda raw, _: optional_payload_of(raw)),
}
"""The fields of single kinds that cross the wire in another form than in the core."""

_KINDS: Final[Mapping[str, type[Transition]]] = {kind.__name__: kind for kind in get_args(Transition)}

_OWN_FIELDS: Final[Mapping[type[Transition], tuple[tuple[str, _Write | None, _Read | None], ...]]] = {
    kind: tuple(
        (one.name, *_CONVERSIONS.get((kind, one.name), (None, None)))
        for one in fields(kind)
        if one.name not in ("header", "input")
    )
    for kind in _KINDS.values()
}
"""(name, how it is written, how it is read) of each kind's own fields; None where the value crosses as it is."""
