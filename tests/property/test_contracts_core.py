"""Every transition, input and state crosses the wire without loss, whatever its fields hold."""

import dataclasses
import json
from enum import Enum
from io import BytesIO
from typing import Any, get_args

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.own import OwnRecords, own_schemas
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.snapshots import decode_state, encode_state
from sagakit.contracts.transitions import UnknownKind, backlog_key, decode_transition, encode_transition
from sagakit.core import events, state
from sagakit.core.address import Address
from sagakit.core.events import Cause, Event, Refusal, Refused, ReplyTo, Source, TraceContext
from sagakit.core.transitions import Direction, Failure, Header, Transition
from sagakit.core.values import CONFLUENT, Opened, Payload

THING = json.dumps(
    {
        "type": "record",
        "name": "test.Thing",
        "fields": [
            {"name": "text", "type": "string"},
            {"name": "number", "type": ["null", "long"]},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        ],
    }
)

registry = MemoryRegistry()
registry.register("test.Thing", THING)
own = OwnRecords(registry, register=True)
avro = AvroCodec(registry)
payloads = PlainPayloadCodec(avro)
thing = avro.compile_schema(THING)

KINDS = get_args(Transition)
INPUTS = get_args(Event)

texts = st.text(max_size=12)
longs = st.integers(-(1 << 63), (1 << 63) - 1)
ints = st.integers(-(1 << 31), (1 << 31) - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | longs | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
data = st.dictionaries(texts, values, max_size=4)
addresses = st.from_regex(r"[a-z][a-z0-9_]{0,6}(\[[0-9]\])?(#[1-9])?(/[a-z]{1,4})?", fullmatch=True).map(Address)


@st.composite
def opened(draw: st.DrawFn) -> Opened:
    fields = {"text": draw(texts), "number": draw(st.none() | longs), "at": "2026-11-23T14:05:09.123456Z"}
    payload = Payload(framed=avro.encode(thing, fields), encoding=CONFLUENT)
    return Opened(payload=payload, type="test.Thing", data=fields)


payload = st.builds(Payload, framed=st.binary(max_size=20), encoding=texts, key_id=st.none() | texts)
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: longs,
    bool: st.booleans(),
    Address: addresses,
    Opened: opened(),
    Payload: payload,
}
BY_NAME: dict[str, st.SearchStrategy[Any]] = {"partition": ints, "data": data, "start": data, "kept": data}


def strategy_of(annotation: Any, name: str) -> st.SearchStrategy[Any]:
    """Any value of a field of a core dataclass."""
    if name in BY_NAME:
        return BY_NAME[name]
    arguments = get_args(annotation)
    if type(None) in arguments:
        (other,) = (one for one in arguments if one is not type(None))
        return st.none() | strategy_of(other, name)
    if annotation in BY_TYPE:
        return BY_TYPE[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return st.sampled_from(list(annotation))
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return built(annotation)
    if arguments and arguments[-1] is Ellipsis:
        return st.lists(strategy_of(arguments[0], name), max_size=2).map(tuple)
    if arguments and len(arguments) == 2:  # a mapping by address
        return st.dictionaries(addresses, strategy_of(arguments[1], name), max_size=3)
    raise AssertionError(f"no strategy for {annotation} of {name}")


def built(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any instance of a core dataclass."""
    return st.builds(
        kind, **{one.name: strategy_of(one.type, one.name) for one in dataclasses.fields(kind) if one.name != "input"}
    )


inputs = {kind: built(kind) for kind in INPUTS}


@st.composite
def transitions(draw: st.DrawFn, kind: type[Any]) -> Transition:
    transition: Transition = draw(built(kind))
    event = draw(st.none() | st.one_of(*inputs.values()))
    if event is not None and draw(st.booleans()):
        event = dataclasses.replace(event, cause=transition.header.cause)
    return dataclasses.replace(transition, input=event)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(drawn=st.data())
@settings(max_examples=6)
def test_transition_survives(kind: type[Any], drawn: st.DataObject) -> None:
    transition = drawn.draw(transitions(kind))
    key, value = encode_transition(transition, "default", own, payloads)
    assert decode_transition(value, own, payloads) == ("default", transition)
    assert key.decode() == backlog_key(transition)


@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.__name__)
@given(drawn=st.data())
@settings(max_examples=25)
def test_input_survives(kind: type[Any], drawn: st.DataObject) -> None:
    transition = dataclasses.replace(drawn.draw(transitions(KINDS[0])), input=drawn.draw(inputs[kind]))
    _, value = encode_transition(transition, "default", own, payloads)
    assert decode_transition(value, own, payloads) == ("default", transition)


@pytest.mark.parametrize("kind", get_args(state.State), ids=lambda kind: kind.__name__)
@given(drawn=st.data())
@settings(max_examples=60)
def test_state_survives(kind: type[Any], drawn: st.DataObject) -> None:
    one = drawn.draw(built(kind))
    restored = decode_state(encode_state(one, own, payloads), own, payloads)
    assert restored == one
    if isinstance(one, state.Saga) and isinstance(restored, state.Saga):
        assert list(restored.steps) == list(one.steps), "the order of the steps is part of the state"


RECORD_NAMES = {"Saga": "Snapshot", "Step": "StepState", "Header": "TransitionHeader", "TimerDue": "TimerInput"}
RENAMED = {("Saga", "data"): "values"}
EXTRA = {"TransitionHeader": {"namespace"}, "StepState": {"address"}}


def record_name(kind: type[Any]) -> str:
    suffix = "Input" if kind in INPUTS and kind.__name__ != "TimerDue" else ""
    return RECORD_NAMES.get(kind.__name__, kind.__name__ + suffix)


@pytest.mark.parametrize(
    "kind",
    [
        *(KINDS + INPUTS + get_args(state.State)),
        *(Header, Cause, Source, TraceContext, Refusal, ReplyTo, Failure, Payload, state.Step, state.KeptSignal),
    ],
    ids=lambda kind: kind.__name__,
)
def test_each_field_has_its_avro_field_and_the_reverse(kind: type[Any]) -> None:
    name = record_name(kind)
    avro_fields = {one["name"] for one in json.loads(own_schemas()[f"sagakit.{name}"])["fields"]}
    core_fields = {RENAMED.get((kind.__name__, one.name), one.name) for one in dataclasses.fields(kind)}
    assert core_fields | EXTRA.get(name, set()) == avro_fields


def test_each_kind_of_transition_has_a_record() -> None:
    with_header = {
        name.removeprefix("sagakit.")
        for name, text in own_schemas().items()
        if any(one["name"] == "header" for one in json.loads(text)["fields"])
    }
    assert with_header == {kind.__name__ for kind in KINDS}


def test_an_unknown_kind_is_kept_as_it_is() -> None:
    later = json.loads(own_schemas()["sagakit.StepSkipped"])
    later["name"] = "StepTeleported"
    later["fields"].append({"name": "whither", "type": "string"})
    registry.register("sagakit.StepTeleported", json.dumps(later))
    header = Header(
        saga_id="s",
        run=1,
        seq=2,
        at_ms=3,
        partition_ms=3,
        definition="d",
        version=1,
        engine_level=9,
        step=Address("ship"),
        direction=Direction.FORWARD,
        attempt=1,
        cause=Cause(message_id="m", type="t"),
    )
    skipped = get_args(Transition)[[kind.__name__ for kind in KINDS].index("StepSkipped")](header=header)
    _, known = encode_transition(skipped, "default", own, payloads)
    fields = own.decode(known).fields | {"whither": "away"}
    value = avro_bytes(json.dumps(later), fields)
    unknown = decode_transition(value, own, payloads)
    assert isinstance(unknown, UnknownKind)
    assert unknown.name == "StepTeleported"
    assert unknown.fields == fields


def avro_bytes(text: str, fields: dict[str, Any]) -> bytes:
    """A framed value, written without any help of ours."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(text)), fields)
    return b"\0" + registry.schema_id(f"sagakit.{json.loads(text)['name']}", text).to_bytes(4, "big") + out.getvalue()


def test_a_later_version_of_a_record_is_read_as_ours() -> None:
    later = json.loads(own_schemas()["sagakit.Marker"])
    later["fields"].insert(0, {"name": "colour", "type": "string", "default": "none"})
    registry.set_compatibility("sagakit.Marker", "FULL_TRANSITIVE")
    registry.register("sagakit.Marker", json.dumps(later))
    marker = state.Marker(
        saga_id="s",
        run=1,
        seq=2,
        definition="d",
        version=1,
        engine_level=1,
        end=state.End.COMPLETED,
        at_ms=3,
        start_message_id="m",
        expires_at_ms=4,
    )
    fields = {one.name: getattr(marker, one.name) for one in dataclasses.fields(marker)} | {"end": "completed"}
    assert decode_state(avro_bytes(json.dumps(later), fields | {"colour": "red"}), own, payloads) == marker


def test_refused_targets_cover_the_core() -> None:
    assert {one.value for one in Refused} == {"command", "compensation", "event", "result", "input"}
    assert {one.value for one in events.Outcome} == {"succeeded", "rejected", "failed", "expired"}
