"""Records and a definition that the tests of the language vary."""

import copy
import io
import json
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from sagakit.language.document import Document
from sagakit.language.findings import Finding
from sagakit.language.lint import lint, lint_text
from sagakit.language.parse import Parsed, parse_data
from sagakit.language.source import Source

LINE = {
    "type": "record",
    "name": "Line",
    "namespace": "test",
    "fields": [
        {"name": "sku", "type": "string"},
        {"name": "quantity", "type": "int"},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}

# One field of each Avro type and logical type; `o_…` are unions of null and the type.
_TYPES: dict[str, Any] = {
    "flag": "boolean",
    "small": "int",
    "large": "long",
    "single": "float",
    "double": "double",
    "text": "string",
    "raw": "bytes",
    "hash": {"type": "fixed", "name": "Hash", "size": 4},
    "colour": {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"]},
    "price": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    "cost": {"type": "fixed", "name": "Cost", "size": 5, "logicalType": "decimal", "precision": 9, "scale": 2},
    "id": {"type": "string", "logicalType": "uuid"},
    "day": {"type": "int", "logicalType": "date"},
    "at_millis": {"type": "int", "logicalType": "time-millis"},
    "at_micros": {"type": "long", "logicalType": "time-micros"},
    "millis": {"type": "long", "logicalType": "timestamp-millis"},
    "micros": {"type": "long", "logicalType": "timestamp-micros"},
    "nanos": {"type": "long", "logicalType": "timestamp-nanos"},
    "local": {"type": "long", "logicalType": "local-timestamp-millis"},
    "span": {"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"},
    "lines": {"type": "array", "items": LINE},
    "line": "test.Line",
    "tags": {"type": "map", "values": "string"},
    "numbers": {"type": "array", "items": "long"},
    "grid": {"type": "array", "items": {"type": "array", "items": "int"}},
    "gaps": {"type": "array", "items": ["null", "string"]},
    "shelves": {"type": "map", "values": {"type": "array", "items": "test.Line"}},
    "either": ["string", "long"],
}
_NAMED: dict[str, Any] = {
    "lines": {"type": "array", "items": "test.Line"},
    "hash": "test.Hash",
    "colour": "test.Colour",
    "cost": "test.Cost",
    "span": "test.Span",
}


def _order_fields() -> list[dict[str, Any]]:
    fields = [{"name": name, "type": kind} for name, kind in _TYPES.items()]
    for name, kind in _TYPES.items():
        if name == "either":
            continue
        again = _NAMED.get(name, kind)
        fields.append({"name": f"o_{name}", "type": ["null", again], "default": None})
    fields.append({"name": "parent", "type": ["null", "test.Order"], "default": None})
    return fields


def record(name: str, **fields: Any) -> str:
    """A record's schema; a field given as a pair has the second as its default."""
    return json.dumps(
        {
            "type": "record",
            "name": name,
            "namespace": "test",
            "fields": [
                {"name": field, "type": kind[0], "default": kind[1]}
                if isinstance(kind, tuple)
                else {"name": field, "type": kind}
                for field, kind in fields.items()
            ],
        }
    )


SCHEMAS: dict[str, str] = {
    "test.Order": record("Order", **{field["name"]: field["type"] for field in _order_fields()}),
    "test.Reserve": record("Reserve", order_id="string", amount=(["null", "long"], None)),
    "test.Reserved": record("Reserved", reservation="string", place=["null", "string"], count="int"),
    "test.Release": record("Release", order_id="string", reservation=(["null", "string"], None)),
    "test.Ship": record("Ship", order_id="string"),
    "test.Shipped": record("Shipped", parcel="string"),
    "test.Done": record("Done", order_id="string", parcel=(["null", "string"], None)),
    "test.Undone": record("Undone", order_id="string", reason=(["null", "string"], None)),
}

BASE: dict[str, Any] = {
    "saga": "take-order",
    "version": 1,
    "owner": "team",
    "start": "test.Order",
    "on": "orders.events",
    "key": "start.text",
    "deadline": "1m",
    "steps": {
        "reserve": {
            "service": "inventory",
            "command": "test.Reserve",
            "with": {"order_id": "start.text"},
            "reply": "test.Reserved",
            "rejects": ["OUT_OF_STOCK"],
            "timeout": "5s",
            "compensate": {"command": "test.Release", "with": {"order_id": "start.text"}},
        },
        "ship": {
            "after": ["reserve"],
            "kind": "pivot",
            "service": "shipping",
            "command": "test.Ship",
            "with": {"order_id": "start.text"},
            "reply": "test.Shipped",
            "timeout": "5s",
        },
        "note": {
            "after": ["ship"],
            "kind": "retriable",
            "service": "orders",
            "command": "test.Ship",
            "with": {"order_id": "start.text"},
            "timeout": "5s",
        },
    },
    "end": {
        "completed": {"publish": "test.Done", "with": {"order_id": "start.text"}},
        "compensated": {"publish": "test.Undone", "with": {"order_id": "start.text"}},
    },
}

REMOVED = object()


def varied(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base definition with values replaced by dotted path; `REMOVED` takes a key out."""
    data = copy.deepcopy(BASE)
    for path, value in changes.items():
        *parents, last = path.split(".")
        at = data
        for parent in parents:
            at = at.setdefault(parent, {})
        if value is REMOVED:
            del at[last]
        else:
            at[last] = value
    return data


def document(changes: Mapping[str, Any] | None = None) -> Document:
    """The varied definition, which must be readable."""
    parsed = parse_data(varied(changes or {}), Source(file="test"))
    assert isinstance(parsed, Parsed), parsed
    return parsed.document


def findings(changes: Mapping[str, Any], schemas: Mapping[str, str] | None = None) -> list[Finding]:
    """What is found wrong with the varied definition, when reading it or afterwards."""
    parsed = parse_data(varied(changes), Source(file="test"))
    if isinstance(parsed, list):
        return parsed
    return lint(parsed.document, {**SCHEMAS, **(schemas or {})}, parsed.source)


def codes(changes: Mapping[str, Any], schemas: Mapping[str, str] | None = None) -> list[str]:
    """The codes of `findings`."""
    return [finding.code for finding in findings(changes, schemas)]


def field_codes(kind: Any, value: Any) -> list[str]:
    """What is found wrong with filling a field of the Avro type `kind` with `value`."""
    schema = record("Reserve", order_id="string", field=kind)
    changes = {"steps.reserve.with": {"order_id": "start.text", "field": value}}
    return codes(changes, {"test.Reserve": schema})


def as_text(changes: Mapping[str, Any]) -> str:
    """The varied definition as YAML, one key or element a line, strings unquoted where that is possible."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 1_000
    yaml.sort_base_mapping_type_on_output = False
    written = io.StringIO()
    yaml.dump(varied(changes), written)
    return written.getvalue()


def places(changes: Mapping[str, Any], schemas: Mapping[str, str] | None = None) -> list[str]:
    """What is found wrong with the varied definition's text: `CODE line:column`, and what stands there."""
    text = as_text(changes)
    lines = text.splitlines()
    return [
        f"{one.code} {one.line}:{one.column} {lines[one.line - 1][one.column - 1 :]}".rstrip()
        for one in lint_text(text, {**SCHEMAS, **(schemas or {})}, "take-order.yaml").findings
        if one.file == "take-order.yaml"
    ]
