"""Generated models hold what the schemas say, speak the forms of data, and are up to date."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.generate import main, models
from sagakit.contracts.schemas import load_folder
from sagakit.core.values import Data
from services import shop_models
from tests.unit.contracts.shop import SHOP

ROOT = Path(__file__).parents[3]


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


LOCAL = datetime(2026, 11, 23, 14, 5, 9, 120_000, tzinfo=UTC).replace(tzinfo=None)
FIELDS: list[tuple[str, Any, Any, Any]] = [
    # name, schema, data, what stands in the model
    ("a_bool", "boolean", True, True),
    ("a_long", "long", -(1 << 63), -(1 << 63)),
    ("a_double", "double", 0.1, 0.1),
    ("a_text", "string", "ä", "ä"),
    ("some_bytes", "bytes", "AP8=", b"\0\xff"),
    ("a_fixed", {"type": "fixed", "name": "F", "size": 2}, "AP8=", b"\0\xff"),
    ("a_decimal", logical("bytes", "decimal", precision=9, scale=2), "12.30", Decimal("12.30")),
    (
        "a_uuid",
        logical("string", "uuid"),
        "123e4567-e89b-12d3-a456-426614174000",
        UUID(int=0x123E4567E89B12D3A456426614174000),
    ),
    ("a_date", logical("int", "date"), "2026-11-23", date(2026, 11, 23)),
    ("a_time", logical("int", "time-millis"), "14:05:09.120", time(14, 5, 9, 120_000)),
    ("a_fine_time", logical("long", "time-micros"), "14:05:09.123456", time(14, 5, 9, 123_456)),
    (
        "a_moment",
        logical("long", "timestamp-millis"),
        "2026-11-23T14:05:09.000Z",
        datetime(2026, 11, 23, 14, 5, 9, tzinfo=UTC),
    ),
    (
        "a_fine_moment",
        logical("long", "timestamp-micros"),
        "2026-11-23T14:05:09.123456Z",
        datetime(2026, 11, 23, 14, 5, 9, 123_456, tzinfo=UTC),
    ),
    (
        "nanoseconds",
        logical("long", "timestamp-nanos"),
        "2026-11-23T14:05:09.123456789Z",
        "2026-11-23T14:05:09.123456789Z",
    ),
    ("local", logical("long", "local-timestamp-millis"), "2026-11-23T14:05:09.120", LOCAL),
    (
        "a_duration",
        {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"},
        "P1M2DT3.004S",
        "P1M2DT3.004S",
    ),
    ("colour", {"type": "enum", "name": "Colour", "symbols": ["RED", "class"]}, "class", "class"),
    ("a_list", {"type": "array", "items": ["null", "int"]}, [1, None], [1, None]),
    ("a_map", {"type": "map", "values": logical("int", "date")}, {"a": "2026-11-23"}, {"a": date(2026, 11, 23)}),
    ("maybe", ["null", "string"], None, None),
    ("class", "int", 5, 5),
    ("model_dump", "int", 6, 6),
    ("_hidden", "int", 7, 7),
]
NODE = {
    "type": "record",
    "name": "test.Node",
    "fields": [{"name": "value", "type": "int"}, {"name": "next", "type": ["null", "Node"], "default": None}],
}
EVERYTHING = {
    "type": "record",
    "name": "test.Everything",
    "doc": 'All of "it" \\ at once.',
    "fields": [*({"name": name, "type": kind} for name, kind, _, _ in FIELDS), {"name": "node", "type": NODE}],
}
DATA: Data = {name: data for name, _, data, _ in FIELDS} | {"node": {"value": 1, "next": {"value": 2, "next": None}}}


def generated(*schemas: dict[str, Any]) -> ModuleType:
    """The module that is generated for these schemas."""
    source = models({schema["name"]: json.dumps(schema) for schema in schemas}, "Test.")
    module = ModuleType("generated_for_test")
    sys.modules[module.__name__] = module
    exec(compile(source, "generated", "exec"), module.__dict__)
    return module


def codec_for(schema: dict[str, Any]) -> tuple[AvroCodec, Any]:
    registry = MemoryRegistry()
    registry.register(schema["name"], json.dumps(schema))
    codec = AvroCodec(registry)
    return codec, codec.compile_schema(json.dumps(schema))


def test_every_type_goes_from_data_to_model_and_back() -> None:
    model: type[BaseModel] = generated(EVERYTHING).Everything
    codec, schema = codec_for(EVERYTHING)
    data = codec.decode(codec.encode(schema, DATA)).data
    assert data == DATA
    one = model.model_validate(data)
    held = {(field.alias or name): getattr(one, name) for name, field in model.model_fields.items()}
    assert list(held) == [*(name for name, *_ in FIELDS), "node"], "the order is the schema's"
    assert held == {name: value for name, _, _, value in FIELDS} | {"node": held["node"]}
    dumped = one.model_dump(mode="json")
    assert dumped == DATA
    assert codec.decode(codec.encode(schema, dumped)).data == DATA
    assert model.model_validate_json(one.model_dump_json()) == one
    assert model.__avro_record__ == "test.Everything"  # type: ignore[attr-defined]
    assert model.__doc__ is not None
    assert 'All of "it" \\ at once.' in model.__doc__


def test_what_people_put_into_a_model_can_be_encoded() -> None:
    fields = [
        {"name": "at", "type": logical("long", "timestamp-millis")},
        {"name": "amount", "type": logical("bytes", "decimal", precision=9, scale=2)},
        {"name": "raw", "type": "bytes"},
    ]
    schema = {"type": "record", "name": "test.R", "fields": fields}
    codec, compiled = codec_for(schema)
    berlin = timezone(timedelta(hours=1))
    one = generated(schema).R(
        at=datetime(2026, 11, 23, 15, 5, 9, 123_999, tzinfo=berlin), amount=Decimal("1E+2"), raw=b"\xff"
    )
    assert codec.decode(codec.encode(compiled, one.model_dump(mode="json"))).data == {
        "at": "2026-11-23T14:05:09.123Z",
        "amount": "100.00",
        "raw": "/w==",
    }


def test_nullability_and_defaults_are_those_of_the_schema() -> None:
    colour = {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}
    fields = [
        {"name": "needed", "type": ["null", "int"]},
        {"name": "five", "type": "int", "default": 5},
        {"name": "colour", "type": colour, "default": "BLUE"},
        {"name": "amount", "type": logical("bytes", "decimal", precision=9, scale=2), "default": "\u0001"},
        {"name": "names", "type": {"type": "array", "items": "string"}, "default": ["a"]},
        {"name": "either", "type": ["int", "string"], "default": 1},
    ]
    module = generated({"type": "record", "name": "test.R", "fields": fields})
    one = module.R(needed=None)
    assert (one.five, one.colour, one.amount, one.names, one.either) == (
        5,
        module.Colour.BLUE,
        Decimal("0.01"),
        ["a"],
        1,
    )
    one.names.append("b")
    assert module.R(needed=1).names == ["a"], "defaults are not shared"
    with pytest.raises(ValidationError, match="needed"):
        module.R()
    with pytest.raises(ValidationError, match="five"):
        module.R(needed=1, five=None)


def test_masked_fields_are_not_printed() -> None:
    order = shop_models.Address(street="Secret street 1", city="Town", postal_code="1", country="DE")
    assert "Secret" not in repr(order)
    assert order.model_dump()["street"] == "Secret street 1"


def test_types_of_one_name_in_two_namespaces_are_told_apart() -> None:
    names = ("one.Thing", "two.Thing")
    things = ({"type": "record", "name": name, "fields": []} for name in names)
    module = generated(*things)
    assert (module.OneThing.__avro_record__, module.TwoThing.__avro_record__) == names


def test_each_record_of_the_shop_has_its_model() -> None:
    records = {model.__avro_record__ for model in vars(shop_models).values() if hasattr(model, "__avro_record__")}
    assert records == set(load_folder(SHOP))


def test_the_shops_models_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["--check"]) == 0


def test_drift_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "models.py"
    arguments = ["--schemas", str(SHOP), "--output", str(output)]
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    output.write_text(output.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert main([*arguments, "--check"]) == 1
    assert "is out of date; run `python -m sagakit.contracts.generate`" in capsys.readouterr().err
    assert main(["--schemas", str(tmp_path), "--output", str(output)]) == 2


def test_contracts_do_not_load_pydantic() -> None:
    modules = ["codec", "conversion", "envelope", "messages", "own", "payload", "snapshots", "transitions"]
    program = "import sys\n" + "".join(f"import sagakit.contracts.{one}\n" for one in modules)
    program += "print(*sorted({'pydantic', 'avro'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
