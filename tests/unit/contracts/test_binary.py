"""What is written without fastavro reads as fastavro writes it; every field stands where its schema has it."""

import json
from io import BytesIO
from typing import Any, get_args

import pytest
from fastavro import parse_schema, schemaless_writer

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts import binary
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import UnencodableError
from sagakit.contracts.own import OwnRecords, own_schemas
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.snapshots import encode_state
from sagakit.contracts.transitions import _INPUTS, _OWN_FIELDS
from sagakit.core.state import Early, KeptSignal
from sagakit.core.transitions import Transition


def _by_fastavro(schema: Any, value: Any) -> bytes:
    out = BytesIO()
    schemaless_writer(out, parse_schema(schema), value)
    return out.getvalue()


@pytest.mark.parametrize(
    "number",
    [0, -1, 1, 63, 64, -64, -65, 8191, 8192, 2**31 - 1, -(2**31), 1_790_000_000_000, 2**63 - 1, -(2**63)],
)
def test_numbers_are_written_as_avro_has_them(number: int) -> None:
    assert binary.long(number) == binary.long(number) == _by_fastavro("long", number)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_avro_has_no_room_for_is_refused(number: int) -> None:
    with pytest.raises(OverflowError, match=f"{number} does not fit"):
        binary.long(number)


@pytest.mark.parametrize("text", ["", "a", "grüße", "日本語", "x" * 70_000])
def test_strings_are_written_as_avro_has_them(text: str) -> None:
    parts: binary.Parts = []
    binary.put_string(parts, text)
    binary.put_optional_string(parts, text)
    binary.put_optional_name(parts, None)
    optional = ["null", "string"]
    assert binary.name(text) == binary.name(text) == _by_fastavro("string", text)
    assert b"".join(parts) == (
        _by_fastavro("string", text) + _by_fastavro(optional, text) + _by_fastavro(optional, None)
    )


@pytest.mark.parametrize("numbers", [[], [7], list(range(-100, 100))])
def test_arrays_are_written_as_avro_has_them(numbers: list[int]) -> None:
    parts: binary.Parts = []
    binary.put_array(parts, len(numbers), numbers, binary.put_long)
    assert b"".join(parts) == _by_fastavro({"type": "array", "items": "long"}, numbers)


def test_what_is_remembered_stays_bounded() -> None:
    for number in range(binary.REMEMBERED + 1_000):
        assert binary.name(str(number)) == binary.long(len(str(number))) + str(number).encode()
        assert binary.long(-number) == binary.long(-number)
    assert 0 < len(binary._names) <= binary.REMEMBERED
    assert 0 < len(binary._numbers) <= binary.REMEMBERED


@pytest.mark.parametrize("kind", get_args(Transition), ids=lambda kind: kind.__name__)
def test_each_transition_has_its_fields_in_the_order_of_its_schema(kind: type) -> None:
    fields = [one["name"] for one in json.loads(own_schemas()[f"sagakit.{kind.__name__}"])["fields"]]
    assert ["header", "input", *(name for name, _, _ in _OWN_FIELDS[kind])] == fields


def test_each_input_has_its_branch_and_its_fields_in_the_order_of_its_schema() -> None:
    schema = json.loads(own_schemas()["sagakit.SagaStarted"])
    branches = next(one["type"] for one in schema["fields"] if one["name"] == "input")
    written = {
        name: ["cause", "trace", "refusals", *(field for field, _, _ in own_fields)] for name, _, own_fields in _INPUTS
    }
    assert branches[0] == "null"
    assert [_full(one) for one in branches[1:]] == list(written)
    for one in branches[1:]:
        assert [field["name"] for field in one["fields"]] == written[_full(one)]


def _full(record: dict[str, Any]) -> str:
    name: str = record["name"]
    return name if "." in name else f"sagakit.{name}"


def test_a_number_beyond_64_bits_in_a_record_of_ours_is_unencodable() -> None:
    signal = KeptSignal(name="paid", message_id="m-1", payload=None, expires_at_ms=2**63)
    own = OwnRecords(MemoryRegistry(), register=True)
    with pytest.raises(UnencodableError, match="does not fit"):
        encode_state(Early(saga_id="s-1", signals=(signal,)), own, PlainPayloadCodec(AvroCodec(MemoryRegistry())))
