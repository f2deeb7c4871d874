"""Each Avro type and logical type on its whole way: lint, compile, decode, evaluate, encode, and decode again."""

import io
import json
from collections.abc import Mapping
from typing import Any

import fastavro
import pytest

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import UnencodableError
from sagakit.contracts.framing import frame
from sagakit.core.values import EvaluationError
from sagakit.language.findings import errors
from sagakit.language.lint import compile_definition, lint
from sagakit.language.parse import Parsed, parse_data
from sagakit.language.source import Source

LINE = {
    "type": "record",
    "name": "Line",
    "namespace": "way",
    "fields": [{"name": "sku", "type": "string"}, {"name": "count", "type": "int"}],
}
GIFT = {"type": "record", "name": "Gift", "namespace": "way", "fields": [{"name": "text", "type": "string"}]}
DURATION = bytes.fromhex("010000000200000003000000")


def logical(kind: Any, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more} if isinstance(kind, str) else {**kind, "logicalType": name}


# The type, what lies on the wire (as Avro has it, without logical types), and the form that expressions see.
TYPES: dict[str, tuple[Any, Any, Any]] = {
    "boolean": ("boolean", True, True),
    "int": ("int", -(2**31), -(2**31)),
    "long": ("long", 2**63 - 1, 2**63 - 1),
    "float": ("float", 0.5, 0.5),
    "double": ("double", 1e300, 1e300),
    "not a number": ("double", float("nan"), "NaN"),
    "string": ("string", "Ghent \N{SNOWMAN}", "Ghent \N{SNOWMAN}"),
    "bytes": ("bytes", b"\x00\xff", "AP8="),
    "fixed": ({"type": "fixed", "name": "way.Hash", "size": 2}, b"\x00\xff", "AP8="),
    "enum": ({"type": "enum", "name": "way.Colour", "symbols": ["RED", "BLUE"]}, "BLUE", "BLUE"),
    "array": ({"type": "array", "items": "long"}, [1, 2], [1, 2]),
    "empty array": ({"type": "array", "items": "long"}, [], []),
    "map": ({"type": "map", "values": "string"}, {"a": "b"}, {"a": "b"}),
    "empty map": ({"type": "map", "values": "string"}, {}, {}),
    "record": (LINE, {"sku": "s", "count": 1}, {"sku": "s", "count": 1}),
    "array of records": ({"type": "array", "items": LINE}, [{"sku": "s", "count": 1}], [{"sku": "s", "count": 1}]),
    "map of arrays": ({"type": "map", "values": {"type": "array", "items": LINE}}, {"a": []}, {"a": []}),
    "array with nulls": ({"type": "array", "items": ["null", "string"]}, [None, "a"], [None, "a"]),
    "union of scalars": (["string", "long"], 5, 5),
    "union of records": ([LINE, GIFT], {"text": "t"}, {"text": "t"}),
    "decimal": (logical("bytes", "decimal", precision=9, scale=2), b"\x04\xd2", "12.34"),
    "fixed decimal": (
        {"type": "fixed", "name": "way.Cost", "size": 3, "logicalType": "decimal", "precision": 6, "scale": 2},
        b"\xff\xff\xff",
        "-0.01",
    ),
    "uuid": (
        logical("string", "uuid"),
        "8f14e45f-ceea-467f-a8f2-6c2e4e4ef0ab",
        "8f14e45f-ceea-467f-a8f2-6c2e4e4ef0ab",
    ),
    "date": (logical("int", "date"), 20_780, "2026-11-23"),
    "time-millis": (logical("int", "time-millis"), 1, "00:00:00.001"),
    "time-micros": (logical("long", "time-micros"), 1, "00:00:00.000001"),
    "timestamp-millis": (logical("long", "timestamp-millis"), 1, "1970-01-01T00:00:00.001Z"),
    "timestamp-micros": (logical("long", "timestamp-micros"), 1, "1970-01-01T00:00:00.000001Z"),
    "timestamp-nanos": (logical("long", "timestamp-nanos"), 1, "1970-01-01T00:00:00.000000001Z"),
    "local-timestamp-millis": (logical("long", "local-timestamp-millis"), 1, "1970-01-01T00:00:00.001"),
    "local-timestamp-micros": (logical("long", "local-timestamp-micros"), 1, "1970-01-01T00:00:00.000001"),
    "duration": (
        {"type": "fixed", "name": "way.Span", "size": 12, "logicalType": "duration"},
        DURATION,
        "P1M2DT0.003S",
    ),
}


def record(name: str, kind: Any) -> str:
    fields = [{"name": "id", "type": "string"}, {"name": "value", "type": kind}]
    return json.dumps({"type": "record", "name": name, "namespace": "way", "fields": fields})


def definition(value: Any) -> Any:
    step: dict[str, Any] = {"service": "s", "command": "way.Go", "kind": "pivot", "timeout": "1s"}
    step["with"] = {"id": "start.id", "value": value}
    return {"saga": "way", "version": 1, "owner": "o", "start": "way.Order", "key": "start.id", "steps": {"go": step}}


def read(value: Any, schemas: Mapping[str, str]) -> tuple[Any, list[str]]:
    """The definition that fills the command's field with `value` (findings, if it has errors), and the codes found."""
    parsed = parse_data(definition(value), Source(file="way"))
    assert isinstance(parsed, Parsed), parsed
    found = lint(parsed.document, schemas)
    compiled = compile_definition(parsed.document, schemas)
    assert isinstance(compiled, list) == bool(errors(found))
    return compiled, [one.code for one in found]


class Way:
    """A start record with a field of one type, and a command with a field of another."""

    def __init__(self, given: Any, taken: Any = None) -> None:
        self.schemas = {"way.Order": record("Order", given), "way.Go": record("Go", given if taken is None else taken)}
        self.registry = MemoryRegistry()
        for name, text in self.schemas.items():
            self.registry.register(name, text)
        self.avro = AvroCodec(self.registry)

    def start(self, raw: Any) -> Any:
        """The start's data, decoded from what another Avro library wrote."""
        plain = json.loads(self.schemas["way.Order"], object_hook=_without_logical)
        body = io.BytesIO()
        fastavro.schemaless_writer(body, fastavro.parse_schema(plain), {"id": "o-1", "value": raw})
        schema_id = self.registry.schema_id("way.Order", self.schemas["way.Order"])
        return self.avro.decode(frame(schema_id, body.getvalue())).data

    def evaluate(self, value: Any, start: Any) -> Any:
        compiled, codes = read(value, self.schemas)
        assert codes == []
        (task,) = compiled.tasks.values()
        return task.command.fields["value"]({"start": start})

    def sent(self, value: Any) -> Any:
        """What a participant reads of the command's field."""
        schema = self.avro.compile_schema(self.schemas["way.Go"])
        return self.avro.decode(self.avro.encode(schema, {"id": "o-1", "value": value})).data["value"]


def _without_logical(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in schema.items() if name not in ("logicalType", "precision", "scale")}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("expression", ["start.value", "[start.value][0]"], ids=["looked up", "by the runtime"])
def test_a_value_of_each_type_arrives_as_it_was(name: str, expression: str) -> None:
    kind, raw, seen = TYPES[name]
    way = Way(kind)
    start = way.start(raw)
    assert start["value"] == seen
    value = way.evaluate(expression, start)
    assert value == seen
    assert way.sent(value) == seen


@pytest.mark.parametrize("name", [name for name, (kind, _, _) in TYPES.items() if not isinstance(kind, list)])
def test_null_in_the_union_with_each_type(name: str) -> None:
    """Null arrives as null where it may; where it may not, lint demands a guard."""
    kind, raw, seen = TYPES[name]
    nullable = Way(["null", kind])
    for given, expected in ((None, None), (raw, seen)):
        start = nullable.start(given)
        value = nullable.evaluate("start.value", start)
        assert value == expected
        assert nullable.sent(value) == expected
    _, codes = read("start.value", Way(["null", kind], kind).schemas)
    assert codes == ["SK309"]


@pytest.mark.parametrize(
    ("expression", "given", "taken", "large"),
    [
        ("start.value * 2", "long", "long", 2**62),
        ("start.value + 1", "long", "long", 2**63 - 1),
        ("-start.value", "long", "long", -(2**63)),
        ("int(start.value)", "double", "long", 2.0**63),
        ("int(start.value)", "string", "long", "9223372036854775808"),
    ],
)
def test_what_exceeds_a_long_is_an_error_of_the_evaluation(
    expression: str, given: str, taken: str, large: int | float | str
) -> None:
    way = Way(given, taken)
    start = way.start(large)
    compiled, _ = read(f"default({expression}, 0)", way.schemas)
    (task,) = compiled.tasks.values()
    assert task.command.fields["value"]({"start": start}) == 0, "the default stands in"
    bare, codes = read(expression, way.schemas)
    if codes:
        assert codes == ["SK313"], "lint demands a guard"
    else:
        (task,) = bare.tasks.values()
        assert isinstance(task.command.fields["value"]({"start": start}), EvaluationError)


def test_what_exceeds_an_int_is_refused_by_lint_and_never_wrapped() -> None:
    assert read("start.value", Way("long", "int").schemas)[1] == ["SK403"]
    assert read(2**31, Way("long", "int").schemas)[1] == ["SK403"]
    way = Way("int")
    computed = way.evaluate("start.value + 1", way.start(2**31 - 1))
    assert computed == 2**31, "the runtime counts in 64 bits"
    with pytest.raises(UnencodableError, match="value"):
        way.sent(computed)
    assert way.sent(way.evaluate("start.value + 1", way.start(2**31 - 2))) == 2**31 - 1


@pytest.mark.parametrize(
    ("given", "taken", "code"),
    [
        ("string", "int", "SK403"),
        ("int", "string", "SK403"),
        ("double", "float", "SK403"),
        ("bytes", {"type": "fixed", "name": "way.Hash", "size": 2}, "SK403"),
        ({"type": "array", "items": "long"}, {"type": "map", "values": "long"}, "SK403"),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "string"}, "SK403"),
        ([LINE, GIFT], "way.Line", "SK403"),
        (LINE, GIFT, "SK403"),
        (["string", "long"], "string", "SK403"),
        (logical("string", "uuid"), logical("int", "date"), "SK403"),
        (logical("long", "timestamp-micros"), logical("long", "timestamp-millis"), "SK403"),
        (logical("long", "timestamp-millis"), logical("long", "local-timestamp-millis"), "SK403"),
        (logical("bytes", "decimal", precision=9, scale=2), logical("bytes", "decimal", precision=9, scale=1), "SK403"),
        ("string", logical("bytes", "decimal", precision=9, scale=2), "SK407"),
        (["null", "string"], "string", "SK309"),
    ],
)
def test_what_does_not_fit_is_refused_by_lint(given: Any, taken: Any, code: str) -> None:
    taken = LINE if taken == "way.Line" else taken
    assert read("start.value", Way(given, taken).schemas)[1] == [code]
