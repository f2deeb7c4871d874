"""Any Avro data crosses the codec without loss, and no bytes do anything but decode or be undecodable."""

import contextlib
import itertools
import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fastavro
import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import UndecodableError, UnencodableError
from sagakit.ports.registry import RegistryUnavailableError, UnknownSchemaError

Json = Any


class OneSchema:
    """A registry that knows one schema, under the id 7."""

    def __init__(self, text: str) -> None:
        self._text = text

    def schema(self, schema_id: int) -> str:
        if schema_id == 7:
            return self._text
        if schema_id == 8:
            raise RegistryUnavailableError("away")
        raise UnknownSchemaError(f"no schema {schema_id}")

    def schema_id(self, subject: str, schema: str) -> int:
        return 7

    def register(self, subject: str, schema: str) -> int:
        return 7

    def versions(self, subject: str) -> tuple[str, ...]:
        return (self._text,)

    def set_compatibility(self, subject: str, level: str) -> None:
        raise AssertionError("nobody asks for it")


@dataclass(frozen=True)
class Kind:
    """An Avro type: its schema, what fastavro writes for it, and its name as a branch of a union."""

    schema: Json
    data: st.SearchStrategy[Any]
    branch: str


ints = st.integers(-(1 << 31), (1 << 31) - 1)
longs = st.integers(-(1 << 63), (1 << 63) - 1) | st.sampled_from([-(1 << 63), (1 << 63) - 1, 0, -1])
texts = st.text(max_size=6)
numbers = itertools.count()
not_a_number = st.just(float("nan"))  # the one bit pattern: values do not tell others apart


def unscaled(precision: int) -> st.SearchStrategy[int]:
    return st.integers(-(10**precision) + 1, 10**precision - 1)


def minimal(number: int) -> bytes:
    return number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)


def logical(kind: str, name: str, data: st.SearchStrategy[Any], **more: Any) -> Kind:
    return Kind({"type": kind, "logicalType": name, **more}, data, kind)


SIMPLE = [
    Kind("boolean", st.booleans(), "boolean"),
    Kind("int", ints, "int"),
    Kind("long", longs, "long"),
    Kind("float", not_a_number | st.floats(width=32, allow_nan=False), "float"),
    Kind("double", not_a_number | st.floats(allow_nan=False), "double"),
    Kind("string", texts, "string"),
    Kind("bytes", st.binary(max_size=6), "bytes"),
    logical("int", "date", ints),
    logical("int", "time-millis", ints),
    logical("long", "time-micros", longs),
    *(
        logical("long", f"{local}timestamp-{unit}", longs)
        for local in ("", "local-")
        for unit in ("millis", "micros", "nanos")
    ),
    logical("string", "uuid", st.uuids().map(str)),
    logical("bytes", "decimal", unscaled(9).map(minimal), precision=9, scale=4),
    logical("bytes", "decimal", unscaled(40).map(minimal), precision=40),
    logical("bytes", "unheard-of", st.binary(max_size=6)),
]


def named(draw: st.DrawFn) -> str:
    """A name for a type, unique in the run."""
    return f"test.T{next(numbers)}"


@st.composite
def fixed_kinds(draw: st.DrawFn) -> Kind:
    name = named(draw)
    which = draw(st.sampled_from(["plain", "duration", "uuid", "decimal"]))
    size = {"plain": 3, "duration": 12, "uuid": 16, "decimal": 5}[which]
    schema: dict[str, Any] = {"type": "fixed", "name": name, "size": size}
    data: st.SearchStrategy[bytes] = st.binary(min_size=size, max_size=size)
    if which == "decimal":
        schema |= {"logicalType": which, "precision": 11, "scale": 2}
        data = unscaled(11).map(lambda one: one.to_bytes(5, "big", signed=True))
    elif which != "plain":
        schema |= {"logicalType": which}
    return Kind(schema, data, name)


@st.composite
def enum_kinds(draw: st.DrawFn) -> Kind:
    name = named(draw)
    symbols = draw(st.lists(st.sampled_from("ABCDEFG"), min_size=1, max_size=4, unique=True))
    return Kind({"type": "enum", "name": name, "symbols": symbols}, st.sampled_from(symbols), name)


def kinds(depth: int) -> st.SearchStrategy[Kind]:
    simple = st.sampled_from(SIMPLE) | fixed_kinds() | enum_kinds()
    if depth == 0:
        return simple
    return simple | arrays(depth - 1) | maps(depth - 1) | unions(depth - 1) | records(depth - 1)


@st.composite
def arrays(draw: st.DrawFn, depth: int) -> Kind:
    items = draw(kinds(depth))
    return Kind({"type": "array", "items": items.schema}, st.lists(items.data, max_size=3), "array")


@st.composite
def maps(draw: st.DrawFn, depth: int) -> Kind:
    values = draw(kinds(depth))
    return Kind({"type": "map", "values": values.schema}, st.dictionaries(texts, values.data, max_size=3), "map")


@st.composite
def records(draw: st.DrawFn, depth: int) -> Kind:
    name = named(draw)
    fields = draw(st.lists(kinds(depth), max_size=4))
    schema = {
        "type": "record",
        "name": name,
        "fields": [{"name": f"f{number}", "type": one.schema} for number, one in enumerate(fields)],
    }
    data = st.fixed_dictionaries({f"f{number}": one.data for number, one in enumerate(fields)})
    return Kind(schema, data, name)


@st.composite
def unions(draw: st.DrawFn, depth: int) -> Kind:
    branches = draw(st.lists(kinds(depth), min_size=1, max_size=4, unique_by=lambda one: one.branch))
    branches = [one for one in branches if one.branch != "union"] or [SIMPLE[0]]
    null = draw(st.none() | st.integers(0, len(branches)))
    schemas = [one.schema for one in branches]
    data = st.one_of(*(one.data.map(lambda datum, name=one.branch: (name, datum)) for one in branches))  # type: ignore[misc]
    if null is not None:
        schemas.insert(null, "null")
        data = st.none() | data
    return Kind(schemas, data, "union")


def without_logical(schema: Json) -> Json:
    if isinstance(schema, list):
        return [without_logical(one) for one in schema]
    if isinstance(schema, dict):
        return {key: without_logical(value) for key, value in schema.items() if key != "logicalType"}
    return schema


def framed(schema: Json, datum: Any) -> bytes:
    """A value written by fastavro alone."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(without_logical(schema)), datum)
    return b"\0\0\0\0\7" + out.getvalue()


root = records(3).filter(lambda one: bool(one.schema["fields"]))


@given(root.flatmap(lambda one: st.tuples(st.just(one.schema), one.data)))
def test_any_data_is_the_same_after_decode_and_encode(drawn: tuple[Json, Any]) -> None:
    schema, datum = drawn
    text = json.dumps(schema)
    codec = AvroCodec(OneSchema(text))
    value = framed(schema, datum)
    decoded = codec.decode(value)
    assert orjson.loads(orjson.dumps(decoded.data)) == decoded.data, "values are JSON, without loss"
    encoded = codec.encode(codec.compile_schema(text), decoded.data)
    assert codec.decode(encoded).data == decoded.data
    if all(len([one for one in union if one != "null"]) == 1 for union in unions_in(schema)):
        assert encoded == value, "only where branches of a union look alike may the bytes choose another one"


def unions_in(schema: Json) -> list[Json]:
    if isinstance(schema, list):
        return [schema, *itertools.chain.from_iterable(map(unions_in, schema))]
    if not isinstance(schema, dict):
        return []
    inner = [schema.get("items"), schema.get("values"), *(one["type"] for one in schema.get("fields", ()))]
    return list(itertools.chain.from_iterable(map(unions_in, inner)))


@given(root.flatmap(lambda one: st.tuples(st.just(one.schema), one.data)), st.data())
def test_damaged_bytes_are_decoded_or_undecodable(drawn: tuple[Json, Any], more: st.DataObject) -> None:
    schema, datum = drawn
    codec = AvroCodec(OneSchema(json.dumps(schema)))
    value = bytearray(framed(schema, datum))
    for _ in range(more.draw(st.integers(1, 4))):
        position = more.draw(st.integers(5, max(5, len(value) - 1)))
        action = more.draw(st.sampled_from(["replace", "insert", "cut"]))
        if action == "replace" and position < len(value):
            value[position] = more.draw(st.integers(0, 255))
        elif action == "insert":
            value[position:position] = more.draw(st.binary(min_size=1, max_size=12))
        else:
            del value[position:]
    decoded_or_undecodable(codec, bytes(value))


@given(root.map(lambda one: one.schema), st.binary(max_size=40))
def test_random_bytes_are_decoded_or_undecodable(schema: Json, body: bytes) -> None:
    decoded_or_undecodable(AvroCodec(OneSchema(json.dumps(schema))), b"\0\0\0\0\7" + body)


def decoded_or_undecodable(codec: AvroCodec, value: bytes) -> None:
    with contextlib.suppress(UndecodableError):
        orjson.dumps(codec.decode(value).data)


@given(st.binary(max_size=12))
@example(b"")
@example(b"\0\0\0\0")
def test_bytes_that_are_not_framed_are_undecodable(value: bytes) -> None:
    assume(value[:5] not in (b"\0\0\0\0\7", b"\0\0\0\0\10"))
    with pytest.raises(UndecodableError):
        AvroCodec(OneSchema('{"type":"record","name":"R","fields":[]}')).decode(value)


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
@example('"string"')
@example("[]")
@example("{}")
@example('{"type":"record","name":"R"}')
@example('{"type":"record","name":"R","fields":[{"name":"a","type":"Unknown"}]}')
@example('{"type":"record","name":"R","fields":[{"name":"a","type":["int","int"]}]}')
@example('{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":"x"}]}')
@example('{"type":"enum","name":"E","symbols":["A"]}')
@example('{"type":"enum","name":"E","symbols":["A"],"fields":3}')
@example("[" * 2000 + "]" * 2000)
@example('{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"enum","name":"E","symbols":"AB"}}]}')
@example('{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"fixed","name":"F","size":-1}}]}')
@example('{"type":"record","name":1,"fields":[]}')
@example('{"type":"record","name":"R","fields":[{"name":1,"type":"int"}]}')
@example('{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"array"}}]}')
def test_a_schema_that_is_no_record_makes_its_values_undecodable(text: str) -> None:
    with pytest.raises(UndecodableError, match="schema 7"):
        AvroCodec(OneSchema(text)).decode(b"\0\0\0\0\7abc")


def test_a_registry_that_is_away_is_not_poison() -> None:
    with pytest.raises(RegistryUnavailableError):
        AvroCodec(OneSchema("")).decode(b"\0\0\0\0\10abc")


@given(
    root.flatmap(lambda one: st.tuples(st.just(one.schema), one.data)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just("\ud800"),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    ),
    st.data(),
)
def test_data_that_does_not_fit_is_unencodable(drawn: tuple[Json, Any], wrong: Any, more: st.DataObject) -> None:
    """Whatever stands in a field, the result is bytes that can be read again or an error that names the field."""
    schema, datum = drawn
    text = json.dumps(schema)
    codec = AvroCodec(OneSchema(text))
    data = dict(codec.decode(framed(schema, datum)).data)
    field = more.draw(st.sampled_from(sorted(data)))
    path = field
    try:
        codec.decode(codec.encode(codec.compile_schema(text), data | {field: wrong}))
    except UnencodableError as error:
        path = error.path
    assert path.startswith(field)
