"""What the state topic holds: one record type a kind of state, and back, without loss.

All data that expressions read is one sealed payload, whatever steps it belongs to.
"""

from typing import Any, Final

from sagakit.contracts.binary import (
    NULL,
    SOME,
    Parts,
    long,
    name,
    put_array,
    put_long,
    put_optional_long,
    put_optional_string,
    put_string,
)
from sagakit.contracts.errors import UndecodableError, UnencodableError
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.parts import (
    Raw,
    failure_of,
    optional_payload_of,
    parsed_address,
    put_failure,
    put_optional_payload,
    put_reply_to,
    put_sealed,
    put_trace,
    reply_to_of,
    sealed_of,
    trace_of,
)
from sagakit.contracts.payload import PayloadCodec
from sagakit.core.state import Early, End, KeptSignal, Marker, Saga, State, Status, Step, StepStatus

EARLY: Final = b"/early"
"""Ends the key of signals that came before their saga."""

_RECORDS: Final = {Saga: "Snapshot", Marker: "Marker", Early: "Early"}
"""The name of each kind's record."""

_STATUS: Final = {one.value: one for one in Status}
_STEP_STATUS: Final = {one.value: one for one in StepStatus}


def state_key(state: State) -> bytes:
    """The key of the state topic that holds a state."""
    key = state.saga_id.encode()
    return key + EARLY if isinstance(state, Early) else key


def encode_state(state: State, own: OwnRecords, payloads: PayloadCodec) -> bytes:
    """The value of a state's record.

    Raises:
        UnencodableError: its data is not made of JSON values, or a number is beyond 64 bits.
    """
    parts = [own.prefix(_RECORDS[type(state)])]
    try:
        if isinstance(state, Saga):
            _put_saga(parts, state, payloads)
        elif isinstance(state, Marker):
            _put_marker(parts, state)
        else:
            put_string(parts, state.saga_id)
            put_array(parts, len(state.signals), state.signals, _put_signal)
    except OverflowError as error:
        raise UnencodableError(_RECORDS[type(state)], (), str(error)) from error
    return b"".join(parts)


def decode_state(value: bytes, own: OwnRecords, payloads: PayloadCodec) -> State:
    """The state that a record of the state topic holds.

    Raises:
        UndecodableError: the bytes are no state, or none that this release can read.
        RegistryUnavailableError: a schema is not known yet and the registry does not answer.
    """
    record = own.decode(value)
    raw = record.fields
    try:
        match record.name:
            case "Snapshot":
                return _saga_of(raw, payloads)
            case "Marker":
                return _marker_of(raw)
            case "Early":
                return Early(saga_id=raw["saga_id"], signals=tuple(map(_signal_of, raw["signals"])))
    except (ValueError, KeyError) as error:  # an enum's value or an address that this release does not know
        raise UndecodableError(f"a {record.name} that cannot be read: {error}") from error
    raise UndecodableError(f"a sagakit.{record.name} is no state of a saga")


def _put_saga(parts: Parts, saga: Saga, payloads: PayloadCodec) -> None:
    put_string(parts, saga.saga_id)
    put_long(parts, saga.run)
    put_long(parts, saga.seq)
    parts.append(name(saga.definition))
    put_long(parts, saga.version)
    put_long(parts, saga.engine_level)
    put_string(parts, saga.key)
    parts.append(name(saga.status.value))
    put_long(parts, saga.at_ms)
    put_optional_long(parts, saga.deadline_at_ms)
    put_string(parts, saga.start_message_id)
    put_sealed(parts, saga.data, payloads)
    if saga.steps:
        parts.append(long(len(saga.steps)))
        for address, step in saga.steps.items():
            _put_step(parts, address, step)
    parts.append(NULL)
    if saga.failure is None:
        parts.append(NULL)
    else:
        parts.append(SOME)
        put_failure(parts, saga.failure)
    put_optional_string(parts, saga.parked)
    put_reply_to(parts, saga.reply_to)
    put_trace(parts, saga.trace)
    put_array(parts, len(saga.signals), saga.signals, _put_signal)


def _put_step(parts: Parts, address: str, step: Step) -> None:
    parts.append(name(address))
    parts.append(name(step.status.value))
    put_long(parts, step.attempt)
    put_long(parts, step.budget_from)
    put_array(parts, len(step.unknown), step.unknown, put_long)
    put_long(parts, step.undo_attempt)
    put_long(parts, step.undo_budget_from)
    put_optional_long(parts, step.due_at_ms)


def _saga_of(raw: Raw, payloads: PayloadCodec) -> Saga:
    failure = raw["failure"]
    return Saga(
        saga_id=raw["saga_id"],
        run=raw["run"],
        seq=raw["seq"],
        definition=raw["definition"],
        version=raw["version"],
        engine_level=raw["engine_level"],
        key=raw["key"],
        status=_STATUS[raw["status"]],
        at_ms=raw["at_ms"],
        deadline_at_ms=raw["deadline_at_ms"],
        start_message_id=raw["start_message_id"],
        data=sealed_of(raw["values"], payloads),
        steps={parsed_address(step["address"]): _step_of(step) for step in raw["steps"]},
        failure=None if failure is None else failure_of(failure),
        parked=raw["parked"],
        reply_to=reply_to_of(raw["reply_to"]),
        trace=trace_of(raw["trace"]),
        signals=tuple(map(_signal_of, raw["signals"])),
    )


def _step_of(raw: Raw) -> Step:
    return Step(
        status=_STEP_STATUS[raw["status"]],
        attempt=raw["attempt"],
        budget_from=raw["budget_from"],
        unknown=tuple(raw["unknown"]),
        undo_attempt=raw["undo_attempt"],
        undo_budget_from=raw["undo_budget_from"],
        due_at_ms=raw["due_at_ms"],
    )


def _put_marker(parts: Parts, marker: Marker) -> None:
    put_string(parts, marker.saga_id)
    put_long(parts, marker.run)
    put_long(parts, marker.seq)
    parts.append(name(marker.definition))
    put_long(parts, marker.version)
    put_long(parts, marker.engine_level)
    parts.append(name(marker.end.value))
    put_long(parts, marker.at_ms)
    put_string(parts, marker.start_message_id)
    put_long(parts, marker.expires_at_ms)


def _marker_of(raw: dict[str, Any]) -> Marker:
    return Marker(**(raw | {"end": End(raw["end"])}))


def _put_signal(parts: Parts, signal: KeptSignal) -> None:
    put_string(parts, signal.name)
    put_string(parts, signal.message_id)
    put_optional_payload(parts, signal.payload)
    put_long(parts, signal.expires_at_ms)


def _signal_of(raw: Raw) -> KeptSignal:
    return KeptSignal(
        name=raw["name"],
        message_id=raw["message_id"],
        payload=optional_payload_of(raw["payload"]),
        expires_at_ms=raw["expires_at_ms"],
    )
