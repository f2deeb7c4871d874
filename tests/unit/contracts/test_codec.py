"""The codec's documented forms, its defaults and errors, and the bytes that could end a process."""

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts.codec import AvroCodec, CompiledSchema
from sagakit.contracts.errors import SchemaError, UndecodableError, UnencodableError
from sagakit.core.values import Value

MISSING = object()


def compiled(*fields: Any) -> tuple[AvroCodec, CompiledSchema]:
    text = json.dumps({"type": "record", "name": "test.R", "fields": list(fields)})
    registry = MemoryRegistry()
    registry.register("test.R", text)
    codec = AvroCodec(registry)
    return codec, codec.compile_schema(text)


def one(schema: Any, default: Any = MISSING) -> tuple[AvroCodec, CompiledSchema]:
    field = {"name": "f", "type": schema}
    return compiled(field if default is MISSING else field | {"default": default})


def crossed(schema: Any, value: Value) -> Value:
    """The value after encoding and decoding."""
    codec, record = one(schema)
    return codec.decode(codec.encode(record, {"f": value})).data["f"]


def time(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "logicalType": name}


def zigzag(number: int) -> bytes:
    """Avro's form of an integer that is not negative."""
    encoded, left = bytearray(), number * 2
    while left > 127:
        encoded.append(left % 128 + 128)
        left //= 128
    return bytes([*encoded, left])


MOMENT_MS = int(datetime(2026, 11, 23, 14, 5, 9, 123_000, tzinfo=UTC).timestamp() * 1000)
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
FIXED_DECIMAL = {"type": "fixed", "name": "D", "size": 2, "logicalType": "decimal", "precision": 6, "scale": 2}
DURATION = {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}
FIXED_UUID = {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}
COLOURS = {"type": "enum", "name": "C", "symbols": ["RED", "BLUE"]}

FORMS: list[tuple[Any, bytes, Value]] = [
    ("null", b"", None),
    ("boolean", b"\1", True),
    ("int", b"\1", -1),
    ("long", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\1", (1 << 63) - 1),
    ("long", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", -(1 << 63)),
    ("double", bytes(8), 0.0),
    ("double", bytes.fromhex("0000000000000080"), -0.0),
    ("double", bytes.fromhex("000000000000f07f"), "Infinity"),
    ("double", bytes.fromhex("000000000000f0ff"), "-Infinity"),
    ("double", bytes.fromhex("000000000000f87f"), "NaN"),
    ("float", bytes.fromhex("0000807f"), "Infinity"),
    ("float", bytes.fromhex("0000003f"), 0.5),
    ("string", b"\4\xc3\xa4", "ä"),
    ("bytes", b"\4\0\xff", "AP8="),
    ({"type": "fixed", "name": "F", "size": 2}, b"\0\xff", "AP8="),
    (COLOURS, b"\2", "BLUE"),
    (DECIMAL, b"\4\x04\xd2", "12.34"),
    (DECIMAL, b"\2\xff", "-0.01"),
    (DECIMAL, b"\2\0", "0.00"),
    (FIXED_DECIMAL, b"\xff\xfe", "-0.02"),
    (time("string", "uuid"), b"\x48123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
    (FIXED_UUID, bytes.fromhex("123e4567e89b12d3a456426614174000"), "123e4567-e89b-12d3-a456-426614174000"),
    (time("int", "date"), zigzag((date(2026, 11, 23) - date(1970, 1, 1)).days), "2026-11-23"),
    (time("int", "date"), b"\1", "1969-12-31"),
    (time("int", "time-millis"), zigzag(24 * 3_600_000 - 1), "23:59:59.999"),
    (time("long", "time-micros"), b"\2", "00:00:00.000001"),
    (time("long", "timestamp-millis"), zigzag(MOMENT_MS), "2026-11-23T14:05:09.123Z"),
    (time("long", "timestamp-micros"), b"\1", "1969-12-31T23:59:59.999999Z"),
    (time("long", "timestamp-nanos"), b"\2", "1970-01-01T00:00:00.000000001Z"),
    (time("long", "local-timestamp-millis"), b"\0", "1970-01-01T00:00:00.000"),
    (time("long", "local-timestamp-micros"), b"\0", "1970-01-01T00:00:00.000000"),
    (time("long", "local-timestamp-nanos"), b"\0", "1970-01-01T00:00:00.000000000"),
    (time("long", "timestamp-millis"), b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\1", "+292278994-08-17T07:12:55.807Z"),
    (time("long", "timestamp-millis"), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", "-292275055-05-16T16:47:04.192Z"),
    (DURATION, b"\1\0\0\0\2\0\0\0\xc3\x0b\0\0", "P1M2DT3.011S"),
    (["null", "string"], b"\0", None),
    (["string", "null"], b"\2", None),
    (["null", "int", "string", COLOURS], b"\4\4hi", "hi"),
    ({"type": "array", "items": "int"}, b"\0", []),
    ({"type": "map", "values": "int"}, b"\0", {}),
    ({"type": "array", "items": ["null", DECIMAL]}, b"\4\0\2\4\x04\xd2\0", [None, "12.34"]),
    ({"type": "map", "values": "bytes"}, b"\2\2a\2\0\0", {"a": "AA=="}),
]


@pytest.mark.parametrize(("schema", "body", "value"), FORMS)
def test_each_type_has_its_one_form(schema: Any, body: bytes, value: Value) -> None:
    codec, record = one(schema)
    decoded = codec.decode(record.prefix + body)
    assert repr(decoded.data) == repr({"f": value})
    assert (decoded.type, decoded.schema_id) == ("test.R", record.schema_id)
    assert codec.encode(record, {"f": value}) == record.prefix + body


@pytest.mark.parametrize(
    ("schema", "value", "crosses_as"),
    [
        ("double", 3, 3.0),
        ("float", 3, 3.0),
        (DECIMAL, "12", "12.00"),
        (DECIMAL, "-1.5", "-1.50"),
        (DECIMAL, "1.230", "1.23"),
        (time("long", "timestamp-millis"), "2026-11-23T14:05:09Z", "2026-11-23T14:05:09.000Z"),
        (time("long", "timestamp-millis"), "2026-11-23T14:05:09.120000Z", "2026-11-23T14:05:09.120Z"),
        (time("int", "time-millis"), "08:30:00", "08:30:00.000"),
        (DURATION, "P2D", "P0M2DT0.000S"),
        (DURATION, "PT1.5S", "P0M0DT1.500S"),
        (["null", "long", "double"], 3, 3),
        (["null", "long", "double"], 3.0, 3.0),
        (["null", "double", "long"], 3, 3),
        (["bytes", "string"], "AAAA", "AAAA"),
        ([DECIMAL, "string"], "12", "12"),
        ([DECIMAL, "string"], "12.30", "12.30"),
        ([time("long", "timestamp-millis"), "int"], "2026-11-23T14:05:09Z", "2026-11-23T14:05:09.000Z"),
    ],
)
def test_other_spellings_are_taken_where_they_are_clear(schema: Any, value: Value, crosses_as: Value) -> None:
    assert repr(crossed(schema, value)) == repr(crosses_as)


@pytest.mark.parametrize(
    ("schema", "value", "reason"),
    [
        ("null", 0, "an integer is not null"),
        ("boolean", 1, "an integer is not a boolean"),
        ("int", True, "a boolean is not an integer"),
        ("int", 1 << 31, "too large for Avro's int"),
        ("long", 1 << 63, "too large for Avro's long"),
        ("long", 1.0, "a double is not an integer"),
        ("double", "1.0", "text is not a double"),
        ("double", (1 << 53) + 1, "cannot hold exactly"),
        ("double", 10**400, "too large"),
        ("float", 1e300, "too large"),
        ("string", 5, "an integer is not text"),
        ("string", "\ud800", "not valid Unicode"),
        ("bytes", "AP8", "not base64"),
        ("bytes", "AP9=", "bits left over"),
        ("bytes", "ä", "not base64"),
        ({"type": "fixed", "name": "F", "size": 3}, "AP8=", "2 bytes, where the type has 3"),
        (COLOURS, "GREEN", r"no symbol of test.C \(BLUE, RED\)"),
        (COLOURS, 1, "not a symbol"),
        (DECIMAL, "12.345", "more than the 2 decimals"),
        (DECIMAL, "12345.67", "more than the 6 digits"),
        (DECIMAL, "1e3", "not a decimal"),
        (DECIMAL, 12, "not text"),
        (FIXED_DECIMAL, "9999.99", "too large"),
        (time("string", "uuid"), "no", "not a UUID"),
        (time("int", "date"), "2026-02-29", "no day of the calendar"),
        (time("int", "date"), "2026-13-01", "no day of the calendar"),
        (time("int", "date"), "23.11.2026", "does not read YYYY-MM-DD"),
        (time("int", "date"), "+99999999-01-01", "too far away"),
        (time("int", "time-millis"), "24:61:00", "does not read HH:MM:SS"),
        (time("long", "timestamp-millis"), "2026-11-23T14:05:09.1234Z", "more precise"),
        (time("long", "timestamp-millis"), "2026-11-23T24:05:09Z", "does not read"),
        (time("long", "timestamp-millis"), "2026-11-23T14:05:09+01:00", "does not read"),
        (time("long", "timestamp-millis"), "2026-11-23T14:05:09", "does not read"),
        (time("long", "local-timestamp-millis"), "2026-11-23T14:05:09Z", "does not read"),
        (DURATION, "P", "does not read"),
        (DURATION, "P4294967296M", "longer than"),
        ({"type": "array", "items": "int"}, {}, "not a list"),
        ({"type": "map", "values": "int"}, [], "not a map"),
        ({"type": "record", "name": "I", "fields": []}, "x", "not a record"),
        (["null", "int", "string"], 1.5, "a double is neither null or int or string"),
    ],
)
def test_what_does_not_fit_is_named_without_its_value(schema: Any, value: Any, reason: str) -> None:
    codec, record = one(schema)
    with pytest.raises(UnencodableError, match=reason) as caught:
        codec.encode(record, {"f": value})
    assert caught.value.path == "f"
    if isinstance(value, str) and len(value) > 3:
        assert value not in str(caught.value), "messages go to logs, where no business data belongs"


def test_an_error_names_the_path() -> None:
    inner = {"type": "record", "name": "I", "fields": [{"name": "n", "type": {"type": "map", "values": "int"}}]}
    codec, record = one({"type": "array", "items": inner})
    with pytest.raises(UnencodableError, match=r"^test\.R: f\[1\]\.n\.x: text is not an integer"):
        codec.encode(record, {"f": [{"n": {}}, {"n": {"x": "y"}}]})


def test_missing_and_unknown_fields_are_refused() -> None:
    codec, record = compiled({"name": "a", "type": "int"}, {"name": "b", "type": ["null", "int"], "default": None})
    assert codec.decode(codec.encode(record, {"a": 1})).data == {"a": 1, "b": None}
    with pytest.raises(UnencodableError, match=r"a: missing, and test\.R has no default"):
        codec.encode(record, {"b": 1})
    with pytest.raises(UnencodableError, match=r"test\.R has no field c, d"):
        codec.encode(record, {"a": 1, "d": 2, "c": 3})


@pytest.mark.parametrize(
    ("schema", "default", "value"),
    [
        ("bytes", "\u00ff", "/w=="),
        ("double", 1, 1.0),
        ({"type": "fixed", "name": "F", "size": 1}, "\u0000", "AA=="),
        (COLOURS, "BLUE", "BLUE"),
        (["null", "int"], None, None),
        (["int", "null"], 5, 5),
        (["null", "int"], 5, 5),
        (["string", COLOURS, "int"], "RED", "RED"),
        (time("long", "timestamp-millis"), 0, "1970-01-01T00:00:00.000Z"),
        ({"type": "array", "items": "int"}, [1, 2], [1, 2]),
        ({"type": "map", "values": ["null", "int"]}, {"a": 1}, {"a": 1}),
        (
            {"type": "record", "name": "I", "fields": [{"name": "n", "type": "int", "default": 7}]},
            {},
            {"n": 7},
        ),
    ],
)
def test_a_default_fills_a_missing_field(schema: Any, default: Any, value: Value) -> None:
    codec, record = one(schema, default)
    assert codec.decode(codec.encode(record, {})).data == {"f": value}


def test_a_default_that_does_not_fit_is_a_schema_error() -> None:
    text = '{"type":"record","name":"R","fields":[{"name":"f","type":"int","default":"x"}]}'
    registry = MemoryRegistry()
    registry.register("R", text)
    with pytest.raises(SchemaError, match=r"default of R\.f"):
        AvroCodec(registry).compile_schema(text)


def test_a_default_that_contains_itself_is_a_schema_error() -> None:
    text = '{"type":"record","name":"R","fields":[{"name":"f","type":"R","default":{}}]}'
    registry = MemoryRegistry()
    registry.register("R", text)
    with pytest.raises(SchemaError, match="contains itself"):
        AvroCodec(registry).compile_schema(text)


NODE = {"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}


@pytest.mark.parametrize("levels", [101, 10_000, 1_000_000])
def test_bytes_that_nest_too_deeply_are_undecodable(levels: int) -> None:
    codec, record = one(NODE)
    with pytest.raises(UndecodableError, match="nested more than 100 deep"):
        codec.decode(record.prefix + b"\2" * levels + b"\0")


def test_what_may_be_read_may_be_written_and_the_reverse() -> None:
    codec, record = one(NODE)

    def nested(levels: int) -> Value:
        value: Value = {"next": None}
        for _ in range(levels):
            value = {"next": value}
        return value

    deepest = {"f": nested(98)}
    assert codec.decode(codec.encode(record, deepest)).data == deepest
    for levels in (99, 100, 5_000):
        with pytest.raises(UnencodableError, match="nested"):
            codec.encode(record, {"f": nested(levels)})


def test_mutual_recursion_is_found() -> None:
    inner = {"type": "record", "name": "B", "fields": [{"name": "a", "type": {"type": "array", "items": "A"}}]}
    codec, record = one({"type": "record", "name": "A", "fields": [{"name": "b", "type": ["null", inner]}]})
    data: Value = {"b": {"a": [{"b": None}, {"b": {"a": []}}]}}
    assert codec.decode(codec.encode(record, {"f": data})).data["f"] == data
    with pytest.raises(UndecodableError, match="nested more than 100 deep"):
        codec.decode(record.prefix + b"\2\2" * 50_000)


@pytest.mark.parametrize("items", ["null", {"type": "record", "name": "E", "fields": []}])
def test_an_array_that_claims_items_without_bytes_is_undecodable(items: Any) -> None:
    codec, record = one({"type": "array", "items": items})
    empty: Value = None if items == "null" else {}
    assert codec.decode(record.prefix + b"\6\0").data == {"f": [empty, empty, empty]}
    with pytest.raises(UndecodableError, match="items without bytes"):
        codec.decode(record.prefix + b"\xfe\xff\xff\xff\x0f\0")


def test_a_decimal_of_thousands_of_digits_is_undecodable() -> None:
    codec, record = one({"type": "bytes", "logicalType": "decimal", "precision": 100})
    with pytest.raises(UndecodableError, match="cannot be shown"):
        codec.decode(record.prefix + b"\xa0\x1f" + b"\x7f" * 2_000)


def test_bytes_left_over_are_undecodable() -> None:
    codec, record = one("int")
    with pytest.raises(UndecodableError, match=r"2 bytes are left over after a test\.R"):
        codec.decode(record.prefix + b"\2\2\2")
