"""The shop's own saga, its published JSON Schema, and the builder."""

import json
from pathlib import Path

import pytest

from sagakit.contracts.schemas import load_folder
from sagakit.core.values import EvaluationError, Opened, Payload, Value
from sagakit.language.builder import DefinitionError, compensation, definition, event, step
from sagakit.language.canonical import canonical_form
from sagakit.language.findings import rules_table
from sagakit.language.json_schema import definition_schema
from sagakit.language.lint import compile_definition, lint_text
from tests.unit.language.shop import SCHEMAS, document

ROOT = Path(__file__).parents[3]
PLACE_ORDER = ROOT / "services" / "orders" / "place_order.yaml"


def test_the_order_saga_has_no_findings_and_compiles() -> None:
    schemas = load_folder(ROOT / "schemas")
    linted = lint_text(PLACE_ORDER.read_text(encoding="utf-8"), schemas, str(PLACE_ORDER))
    assert linted.findings == ()
    assert linted.document is not None
    compiled = compile_definition(linted.document, schemas)
    assert not isinstance(compiled, list)
    assert list(compiled.tasks) == ["reserve", "charge", "ship", "confirm"]
    assert compiled.tasks[compiled.pivots[0]].keep == ("carrier", "parcel_id", "tracking")
    start: dict[str, Value] = {"order_id": "o-1", "items": [{"sku": "a", "quantity": 1, "unit_price_cents": 100}]}
    command = next(iter(compiled.tasks.values())).command
    values = {name: expression({"start": start}) for name, expression in command.fields.items()}
    assert values == start
    assert not any(isinstance(value, EvaluationError) for value in values.values())


def test_the_published_json_schema_is_that_of_the_models() -> None:
    written = (ROOT / "docs" / "definition.schema.json").read_text(encoding="utf-8")
    assert written == definition_schema(), (
        "write it anew: python -m sagakit.language.json_schema > docs/definition.schema.json"
    )
    properties = json.loads(written)["properties"]
    assert "default" not in properties["dedupe"]
    assert all("description" in entry for entry in properties.values())


def test_every_rule_is_documented() -> None:
    documented = (ROOT / "docs" / "definitions.md").read_text(encoding="utf-8")
    assert rules_table() in documented, (
        "put what sagakit.language.findings.rules_table() gives into docs/definitions.md"
    )


def test_the_builder_gives_the_same_data_as_the_yaml() -> None:
    built = definition(
        "take-order",
        version=1,
        owner="team",
        start="test.Order",
        on="orders.events",
        key="start.text",
        deadline="1m",
        steps=[
            step(
                "reserve",
                service="inventory",
                command="test.Reserve",
                timeout="5s",
                fields={"order_id": "start.text"},
                reply="test.Reserved",
                rejects=["OUT_OF_STOCK"],
                compensate=compensation("test.Release", {"order_id": "start.text"}),
            ),
            step(
                "ship",
                service="shipping",
                command="test.Ship",
                timeout="5s",
                fields={"order_id": "start.text"},
                after=["reserve"],
                kind="pivot",
                reply="test.Shipped",
            ),
            step(
                "note",
                service="orders",
                command="test.Ship",
                timeout="5s",
                fields={"order_id": "start.text"},
                after=["ship"],
                kind="retriable",
            ),
        ],
        completed=event("test.Done", {"order_id": "start.text"}),
        compensated=event("test.Undone", {"order_id": "start.text"}),
    )
    assert canonical_form(built) == canonical_form(document())
    assert not isinstance(compile_definition(built, SCHEMAS), list)


def test_the_builder_says_all_that_is_wrong() -> None:
    one = step("a", service="S", command="test.Ship", timeout="5", fields={})
    with pytest.raises(DefinitionError) as caught:
        definition("x", version=1, owner="team", start="test.Order", key="start.text", steps=[one, one])
    assert [finding.code for finding in caught.value.findings] == ["SK102", "SK105", "SK106"]
    assert "steps.a.timeout" in str(caught.value)


def test_an_older_writer_is_read_as_the_definitions_own_schemas_have_it() -> None:
    order = json.loads(SCHEMAS["test.Order"])
    order["fields"].append({"name": "channel", "type": "string", "default": "web"})
    compiled = compile_definition(document(), {**SCHEMAS, "test.Order": json.dumps(order)})
    assert not isinstance(compiled, list), compiled
    payload = Payload(framed=b"", encoding="confluent")

    known = compiled.data_of(Opened(payload=payload, type="test.Order", data={"order_id": "o-1"}))
    assert (known["order_id"], known["channel"]) == ("o-1", "web")
    assert compiled.data_of(Opened(payload=payload, type="test.Unknown", data={"a": 1})) == {"a": 1}
    assert compiled.data_of(None) == {}
