"""What the schema masks is never shown, however deep it lies."""

import json
from typing import Any

import pytest

from sagakit.contracts.avro_types import parse_record
from sagakit.contracts.masking import compile_mask, mask

SECRET = {"name": "secret", "type": ["null", "string"], "sagakit.mask": True}
INNER = {"type": "record", "name": "Inner", "fields": [SECRET, {"name": "open", "type": "int"}]}
DATA: Any = {"secret": "s", "open": 1}
SHOWN: Any = {"secret": "***", "open": 1}


def masked(schema: Any, value: Any, **more: Any) -> Any:
    record = {"type": "record", "name": "R", "fields": [{"name": "f", "type": schema, **more}]}
    return mask({"f": value}, parse_record(json.dumps(record)))["f"]


@pytest.mark.parametrize(
    ("schema", "value", "shown"),
    [
        ("int", 1, 1),
        (INNER, DATA, SHOWN),
        (["null", INNER], DATA, SHOWN),
        (["null", INNER], None, None),
        ({"type": "array", "items": INNER}, [DATA, DATA], [SHOWN, SHOWN]),
        ({"type": "map", "values": {"type": "array", "items": INNER}}, {"a": [DATA]}, {"a": [SHOWN]}),
        (["null", "string", INNER], "text", "text"),
        (["null", "string", INNER], DATA, SHOWN),
        (
            [
                INNER,
                {"type": "record", "name": "Other", "fields": [{"name": "open", "type": "int", "sagakit.mask": True}]},
            ],
            {"secret": "s", "open": 1},
            {"secret": "***", "open": "***"},
        ),
        (INNER, {"open": 1}, {"open": 1}),
        (INNER, {"secret": None, "open": 1}, {"secret": None, "open": 1}),
        (INNER, {"open": 1, "of_a_later_version": "x"}, {"open": 1, "of_a_later_version": "***"}),
    ],
)
def test_masked_fields_are_hidden_wherever_they_lie(schema: Any, value: Any, shown: Any) -> None:
    assert masked(schema, value) == shown


@pytest.mark.parametrize("value", [5, "text", [1], {"a": 1}, True])
def test_a_masked_field_hides_all_that_lies_in_it(value: Any) -> None:
    schema = ["null", "int", "string", "boolean", {"type": "array", "items": "int"}, {"type": "map", "values": "int"}]
    assert masked(schema, value, **{"sagakit.mask": True}) == "***"
    assert masked(schema, value, **{"sagakit.mask": False}) == value


def test_records_that_contain_themselves_are_masked_to_the_end() -> None:
    node = {"type": "record", "name": "N", "fields": [SECRET, {"name": "next", "type": ["null", "N"]}]}
    show = compile_mask(parse_record(json.dumps(node)))
    data: Any = {"secret": "a", "next": {"secret": "b", "next": None}}
    assert show(data) == {"secret": "***", "next": {"secret": "***", "next": None}}
    assert data["next"]["secret"] == "b", "the data itself stays"
