"""A folder of schemas becomes self-contained texts; ours are documented throughout and evolve both ways."""

import json
from pathlib import Path
from typing import Any

import pytest

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts.avro_types import RecordType, parse
from sagakit.contracts.errors import SchemaError, UndecodableError
from sagakit.contracts.own import OwnRecords, own_schemas
from sagakit.contracts.schemas import load_folder
from tests.unit.contracts.shop import SHOP


def write(folder: Path, name: str, schema: Any) -> None:
    (folder / f"{name}.avsc").write_text(json.dumps(schema), encoding="utf-8")


def test_types_are_defined_where_they_are_first_used(tmp_path: Path) -> None:
    write(tmp_path, "z", {"type": "enum", "name": "Z", "namespace": "n", "symbols": ["A"]})
    write(tmp_path, "b", {"type": "record", "name": "B", "namespace": "n", "fields": [{"name": "z", "type": "Z"}]})
    fields = [{"name": "one", "type": "B"}, {"name": "two", "type": ["null", {"type": "array", "items": "n.Z"}]}]
    write(tmp_path, "a", {"type": "record", "name": "n.A", "fields": fields, "colour": "red"})
    texts = load_folder(tmp_path)
    assert list(texts) == ["n.Z", "n.B", "n.A"], "the used before their users"
    schema = json.loads(texts["n.A"])
    inner = schema["fields"][0]["type"]
    assert schema["colour"] == "red", "other properties stay"
    assert inner["name"] == "B"
    assert inner["fields"][0]["type"]["symbols"] == ["A"]
    assert schema["fields"][1]["type"] == ["null", {"type": "array", "items": "n.Z"}]


def test_types_may_use_each_other(tmp_path: Path) -> None:
    for name, other in (("A", "B"), ("B", "A")):
        fields = [{"name": "other", "type": ["null", other], "default": None}]
        write(tmp_path, name, {"type": "record", "name": name, "fields": fields})
    for text in load_folder(tmp_path).values():
        assert isinstance(parse(text), RecordType)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, r"has no \.avsc file"),
        (
            {"a": {"type": "record", "name": "A", "fields": []}, "b": {"type": "record", "name": "A", "fields": []}},
            "already",
        ),
        ({"a": {"type": "record", "name": "A", "fields": [{"name": "f", "type": "Nope"}]}}, "'Nope' is unknown"),
        ({"a": {"type": "array", "items": "int"}}, "one record, enum or fixed"),
        (
            {"a": {"type": "record", "name": "A", "fields": [{"name": "f", "type": ["int", "int"]}]}},
            r"a\.avsc: a union",
        ),
        ({"a": {"type": "record", "name": "A", "fields": "none"}}, r"a\.avsc: not an Avro schema"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(files: dict[str, Any], says: str, tmp_path: Path) -> None:
    for name, schema in files.items():
        write(tmp_path, name, schema)
    with pytest.raises(SchemaError, match=says):
        load_folder(tmp_path)


@pytest.mark.parametrize("file", sorted(SHOP.parent.rglob("*.avsc")), ids=lambda file: file.stem)
def test_each_file_is_one_documented_record(file: Path) -> None:
    schema = json.loads(file.read_text(encoding="utf-8"))
    full_name = f"{schema['namespace']}.{schema['name']}"
    expected = f"sagakit.{file.stem}" if file.parent.name == "sagakit" else f"shop.{file.stem}"
    assert full_name == expected
    assert schema["doc"]
    undocumented = [field["name"] for field in schema["fields"] if not field.get("doc")]
    assert undocumented == []


def test_our_records_have_no_type_that_needs_conversion() -> None:
    for name, text in own_schemas().items():
        assert "logicalType" not in text, name


def test_every_own_record_can_be_written() -> None:
    own = OwnRecords(MemoryRegistry(), register=True)
    own.prepare()
    assert len(own.names) == len(own_schemas())


def test_an_unknown_record_of_ours_is_named() -> None:
    with pytest.raises(SchemaError, match="no record 'Nope'"):
        OwnRecords(MemoryRegistry(), register=True).encode("Nope", {})


_TREE = [{"name": "again", "type": ["null", "sagakit.Marker"]}]


@pytest.mark.parametrize(
    ("name", "fields", "body"),
    [
        ("Start", [{"name": "nothing", "type": "string"}], b"\x02x"),
        ("Marker", _TREE, b"\x02" * 50_000),
        ("Unheard", [{"name": "many", "type": {"type": "array", "items": "null"}}], b"\xfe\xff\xff\xff\x0f\x00"),
        ("Start", [{"name": "x", "type": "string", "default": 7}], b""),
    ],
    ids=["another record", "contains itself", "announces millions", "no Avro"],
)
def test_a_strangers_schema_under_a_name_of_ours_makes_its_records_unreadable(
    name: str, fields: list[object], body: bytes
) -> None:
    """Each once ended the process, the second without a word: whoever may register schemas could do it."""
    text = json.dumps({"type": "record", "name": name, "namespace": "sagakit", "fields": fields})
    registry = MemoryRegistry()
    strange = registry.register("strange", text)
    own = OwnRecords(registry, register=True)
    with pytest.raises(UndecodableError):
        own.decode(b"\x00" + strange.to_bytes(4, "big") + body)
