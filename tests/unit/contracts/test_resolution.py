"""Data of an older writer reads as Avro itself would resolve it to the reader's schema."""

import json
from io import BytesIO
from typing import Any

import fastavro
import pytest

from sagakit.contracts.avro_types import parse_record
from sagakit.contracts.errors import SchemaError
from sagakit.contracts.resolution import compile_resolution
from sagakit.core.values import Data


def record(*fields: dict[str, Any], name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


A, NEW = field("a", "int"), field("new", "string", default="x")
INNER, WIDER = record(A, name="I"), record(A, NEW, name="I")


def resolve(reader: dict[str, Any], data: dict[str, Any]) -> Data:
    resolution = compile_resolution(parse_record(json.dumps(reader)))
    return data if resolution is None else resolution(data)


@pytest.mark.parametrize(
    ("writer", "reader", "data"),
    [
        (record(A), record(A, NEW), {"a": 1}),
        (record(A), record(field("a", "double")), {"a": 1}),
        (record(A), record(field("a", "long")), {"a": 1}),
        (record(field("i", INNER)), record(field("i", WIDER)), {"i": {"a": 1}}),
        (record(field("i", ["null", INNER])), record(field("i", ["null", WIDER])), {"i": {"a": 1}}),
        (record(field("i", ["null", INNER])), record(field("i", ["null", WIDER])), {"i": None}),
        (
            record(field("i", {"type": "array", "items": INNER})),
            record(field("i", {"type": "array", "items": WIDER})),
            {"i": [{"a": 1}, {"a": 2}]},
        ),
        (
            record(field("i", {"type": "map", "values": "int"})),
            record(field("i", {"type": "map", "values": "double"})),
            {"i": {"x": 1}},
        ),
        (record(A), record(A, field("i", WIDER, default={"a": 5, "new": "y"})), {"a": 1}),
        (record(A), record(A, field("many", {"type": "array", "items": "int"}, default=[1, 2])), {"a": 1}),
        (record(A), record(A, field("maybe", ["null", "int"], default=None)), {"a": 1}),
    ],
)
def test_it_is_what_avro_makes_of_it(writer: dict[str, Any], reader: dict[str, Any], data: dict[str, Any]) -> None:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(writer), data)
    expected = fastavro.schemaless_reader(
        BytesIO(out.getvalue()), fastavro.parse_schema(writer), fastavro.parse_schema(reader)
    )
    before = json.dumps(data)
    resolved = resolve(reader, data)
    assert repr(resolved) == repr(expected)
    assert json.dumps(data) == before, "the data itself stays"


def test_defaults_have_the_form_of_data() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    moment = {"type": "long", "logicalType": "timestamp-millis"}
    reader = record(field("amount", decimal, default="\u0001"), field("at", moment, default=0))
    resolved = resolve(reader, {})
    assert resolved == {"amount": "0.01", "at": "1970-01-01T00:00:00.000Z"}


def test_what_has_no_default_stays_missing_and_what_is_unknown_stays() -> None:
    assert resolve(record(A, NEW), {"other": 1}) == {"other": 1, "new": "x"}


def test_a_record_whose_data_cannot_change_needs_no_resolution() -> None:
    inner = record(A, name="Inner")
    plain = record(A, field("one", inner), field("many", {"type": "array", "items": "Inner"}))
    assert compile_resolution(parse_record(json.dumps(plain))) is None


def test_records_that_contain_themselves_are_resolved_to_the_end() -> None:
    node = record(field("next", ["null", "R"]), NEW)
    data: Any = {"next": {"next": None}}
    resolved = resolve(node, data)
    assert resolved == {"next": {"next": None, "new": "x"}, "new": "x"}


def test_a_default_that_does_not_fit_is_a_schema_error() -> None:
    with pytest.raises(SchemaError, match="does not fit"):
        compile_resolution(parse_record(json.dumps(record(field("a", ["int", "null"], default="x")))))
