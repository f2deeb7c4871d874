"""What the state topic holds: one record type a kind of state, and back, without loss.

All data that expressions read is one sealed payload, whatever steps it belongs to.
"""

from typing import Any, Final

from sagakit.contracts.errors import UndecodableError
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.parts import (
    Fields,
    Raw,
    failure_fields,
    failure_of,
    optional_payload,
    optional_payload_of,
    parsed_address,
    reply_to_fields,
    reply_to_of,
    sealed_fields,
    sealed_of,
    trace_fields,
    trace_of,
)
from sagakit.contracts.payload import PayloadCodec
from sagakit.core.state import Early, End, KeptSignal, Marker, Saga, State, Status, Step, StepStatus

_STATUS: Final = {one.value: one for one in Status}
_STEP_STATUS: Final = {one.value: one for one in StepStatus}


def encode_state(state: State, own: OwnRecords, payloads: PayloadCodec) -> bytes:
    """The value of a state's record.

    Raises:
        UnencodableError: its data is not made of JSON values.
    """
    match state:
        case Saga():
            return own.encode("Snapshot", _saga_fields(state, payloads))
        case Marker():
            return own.encode("Marker", _marker_fields(state))
        case Early():
            signals = [_signal_fields(signal) for signal in state.signals]
            return own.encode("Early", {"saga_id": state.saga_id, "signals": signals})


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


def _saga_fields(saga: Saga, payloads: PayloadCodec) -> Fields:
    return {
        "saga_id": saga.saga_id,
        "run": saga.run,
        "seq": saga.seq,
        "definition": saga.definition,
        "version": saga.version,
        "engine_level": saga.engine_level,
        "key": saga.key,
        "status": saga.status.value,
        "at_ms": saga.at_ms,
        "deadline_at_ms": saga.deadline_at_ms,
        "start_message_id": saga.start_message_id,
        "values": sealed_fields(saga.data, payloads),
        "steps": [
            {
                "address": address,
                "status": step.status.value,
                "attempt": step.attempt,
                "budget_from": step.budget_from,
                "unknown": step.unknown,
                "undo_attempt": step.undo_attempt,
                "undo_budget_from": step.undo_budget_from,
                "due_at_ms": step.due_at_ms,
            }
            for address, step in saga.steps.items()
        ],
        "failure": None if saga.failure is None else ("sagakit.Failure", failure_fields(saga.failure)),
        "parked": saga.parked,
        "reply_to": reply_to_fields(saga.reply_to),
        "trace": trace_fields(saga.trace),
        "signals": [_signal_fields(signal) for signal in saga.signals],
    }


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


def _marker_fields(marker: Marker) -> Fields:
    return {
        "saga_id": marker.saga_id,
        "run": marker.run,
        "seq": marker.seq,
        "definition": marker.definition,
        "version": marker.version,
        "engine_level": marker.engine_level,
        "end": marker.end.value,
        "at_ms": marker.at_ms,
        "start_message_id": marker.start_message_id,
        "expires_at_ms": marker.expires_at_ms,
    }


def _marker_of(raw: dict[str, Any]) -> Marker:
    return Marker(**(raw | {"end": End(raw["end"])}))


def _signal_fields(signal: KeptSignal) -> Fields:
    return {
        "name": signal.name,
        "message_id": signal.message_id,
        "payload": optional_payload(signal.payload),
        "expires_at_ms": signal.expires_at_ms,
    }


def _signal_of(raw: Raw) -> KeptSignal:
    return KeptSignal(
        name=raw["name"],
        message_id=raw["message_id"],
        payload=optional_payload_of(raw["payload"]),
        expires_at_ms=raw["expires_at_ms"],
    )
