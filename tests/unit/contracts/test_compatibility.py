"""Which rule a schema breaks, at which field, against which version."""

import json
from typing import Any

import pytest

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts.compatibility import incompatibilities
from sagakit.contracts.errors import SchemaError
from sagakit.contracts.registration import Standing, compare, level_of, register


def record(*fields: tuple[str, Any], name: str = "test.R") -> str:
    return json.dumps(
        {
            "type": "record",
            "name": name,
            "fields": [
                {"name": one, "type": kind}
                | ({"default": None} if isinstance(kind, list) and kind[0] == "null" else {})
                for one, kind in fields
            ],
        }
    )


def nested(*fields: tuple[str, Any], **more: Any) -> dict[str, Any]:
    inner: dict[str, Any] = json.loads(record(*fields, name="test.Inner"))
    return inner | more


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "test.E", "symbols": list(symbols), **more}


MISSING_DEFAULT = "reader_field_missing_default_value"


@pytest.mark.parametrize(
    ("old", "new", "level", "broken"),
    [
        (record(("a", "int")), record(("a", "int"), ("b", "int")), "BACKWARD", [("b", MISSING_DEFAULT, "backward")]),
        (record(("a", "int"), ("b", "int")), record(("a", "int")), "FORWARD", [("b", MISSING_DEFAULT, "forward")]),
        (record(("a", "int"), ("b", "int")), record(("a", "int")), "BACKWARD", []),
        (record(("a", "int")), record(("a", "int"), ("b", ["null", "int"])), "FULL", []),
        (record(("a", "int")), record(("a", "string")), "BACKWARD", [("a", "type_mismatch", "backward")]),
        (
            record(("a", "int")),
            record(("a", "string")),
            "FULL",
            [("a", "type_mismatch", "backward"), ("a", "type_mismatch", "forward")],
        ),
        (record(("a", "int")), record(("a", "string")), "NONE", []),
        (
            record(("a", nested(("x", "int")))),
            record(("a", nested(("x", "int"), ("y", "int")))),
            "BACKWARD",
            [("a.y", MISSING_DEFAULT, "backward")],
        ),
        (
            record(("a", {"type": "array", "items": nested(("x", "int"))})),
            record(("a", {"type": "array", "items": nested(("x", "string"))})),
            "BACKWARD",
            [("a.items.x", "type_mismatch", "backward")],
        ),
        (
            record(("a", {"type": "map", "values": "int"})),
            record(("a", {"type": "map", "values": "string"})),
            "BACKWARD",
            [("a.values", "type_mismatch", "backward")],
        ),
        (
            record(("a", ["null", nested(("x", "int"))])),
            record(("a", ["null", nested(("x", "string"))])),
            "BACKWARD",
            [("a.x", "type_mismatch", "backward")],
        ),
        (
            record(("a", ["null", "int", "string"])),
            record(("a", ["null", "int"])),
            "BACKWARD",
            [("a", "missing_union_branch", "backward")],
        ),
        (
            record(("a", enum("X", "Y"))),
            record(("a", enum("X"))),
            "BACKWARD",
            [("a", "missing_enum_symbols", "backward")],
        ),
        (record(("a", enum("X", "Y"))), record(("a", enum("X", default="X"))), "BACKWARD", []),
        (
            record(("a", "int")),
            record(("a", "int"), name="test.Other"),
            "BACKWARD",
            [("", "name_mismatch", "backward")],
        ),
        (
            record(("a", "int"), ("b", "int")),
            record(("a", "string"), ("b", "string")),
            "BACKWARD",
            [("a", "type_mismatch", "backward"), ("b", "type_mismatch", "backward")],
        ),
    ],
)
def test_each_broken_rule_is_found_at_its_field(
    old: str, new: str, level: str, broken: list[tuple[str, str, str]]
) -> None:
    found = incompatibilities(new, [old], level)
    assert [(one.field, one.rule, one.direction) for one in found] == broken
    assert all(one.version == 1 and "; " in one.message for one in found), "each says what to do"


def test_transitive_levels_look_at_all_versions() -> None:
    versions = [record(("a", "int"), ("b", "int")), record(("a", "int"))]
    new = record(("a", "int"), ("b", ["null", "string"]))
    assert incompatibilities(new, versions, "BACKWARD") == ()
    (broken,) = incompatibilities(new, versions, "BACKWARD_TRANSITIVE")
    assert (broken.field, broken.rule, broken.version) == ("b", "missing_union_branch", 1)


def test_records_that_contain_themselves_are_compared() -> None:
    def node(kind: str) -> str:
        return record(("value", kind), ("next", ["null", "test.R"]))

    assert incompatibilities(node("long"), [node("int")], "BACKWARD") == ()
    (broken,) = incompatibilities(node("string"), [node("int")], "BACKWARD")
    assert broken.field == "value"


@pytest.mark.parametrize(("schema", "level"), [("nonsense", "BACKWARD"), (record(), "SIDEWAYS")])
def test_what_cannot_be_compared_is_a_schema_error(schema: str, level: str) -> None:
    with pytest.raises(SchemaError):
        incompatibilities(schema, [record()], level)


def test_a_folder_is_registered_whole_or_not_at_all() -> None:
    registry = MemoryRegistry()
    first = {"test.R": record(("a", "int")), "sagakit.S": record(("a", "int"), name="sagakit.S")}
    compared = compare(first, registry)
    assert [one.standing for one in compared] == [Standing.NEW_SUBJECT, Standing.NEW_SUBJECT]
    ids = register(compared, registry)
    assert ids.keys() == first.keys()
    assert {one.standing for one in compare(first, registry)} == {Standing.REGISTERED}
    assert register(compare(first, registry), registry) == ids, "again, it changes nothing"

    later = {
        "test.R": record(("a", "long")),
        "sagakit.S": record(("a", "long"), name="sagakit.S"),
        "test.New": record(name="test.New"),
    }
    compared = compare(later, registry)
    assert [one.standing for one in compared] == [Standing.NEW_VERSION, Standing.INCOMPATIBLE, Standing.NEW_SUBJECT]
    assert [one.direction for one in compared[1].incompatibilities] == ["forward"], "ours hold both ways"
    with pytest.raises(ValueError, match=r"sagakit\.S"):
        register(compared, registry)
    assert registry.versions("test.New") == ()
    assert len(registry.versions("test.R")) == 1


def test_our_own_records_are_held_to_the_stricter_rule() -> None:
    assert level_of("sagakit.Snapshot") == "FULL_TRANSITIVE"
    assert level_of("shop.orders.OrderPlaced") == "BACKWARD_TRANSITIVE"
    assert level_of("sagakitten.Thing") == "BACKWARD_TRANSITIVE"
