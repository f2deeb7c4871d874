"""`sagakit schemas` as a user runs it, against a real registry."""

import json
import uuid
from pathlib import Path
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner, Result

from sagakit.adapters.confluent_registry import ConfluentRegistry
from sagakit.cli import exits, main
from sagakit.cli.schemas import app
from sagakit.contracts.own import own_schemas

pytestmark = pytest.mark.registry


class Served(Protocol):
    url: str


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("SAGAKIT_CONFIG", "SAGAKIT_REGISTRY_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def namespace() -> str:
    return f"cli{uuid.uuid4().hex}"


@pytest.fixture
def folder(tmp_path: Path, namespace: str) -> Path:
    folder = tmp_path / "schemas"
    folder.mkdir()
    write(folder, "Order", namespace, [{"name": "id", "type": "string"}, {"name": "item", "type": f"{namespace}.Item"}])
    write(folder, "Item", namespace, [{"name": "sku", "type": "string"}])
    return folder


def write(folder: Path, name: str, namespace: str, fields: list[dict[str, Any]]) -> None:
    schema = {"type": "record", "name": name, "namespace": namespace, "fields": fields}
    (folder / f"{name}.avsc").write_text(json.dumps(schema, indent=2), encoding="utf-8")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_register_then_check(registry: Served, folder: Path, namespace: str) -> None:
    before = run("check", folder, "--registry", registry.url)
    assert before.exit_code == 1
    assert "register them with `sagakit schemas register`" in before.stderr
    done = run("register", folder, "--registry", registry.url, "--json")
    assert done.exit_code == 0, done.output
    subjects = {one["subject"]: one for one in json.loads(done.stdout)}
    assert subjects.keys() == {*own_schemas(), f"{namespace}.Item", f"{namespace}.Order"}
    assert all(isinstance(one["id"], int) for one in subjects.values())
    assert subjects[f"{namespace}.Order"]["level"] == "BACKWARD_TRANSITIVE"
    assert subjects["sagakit.Snapshot"]["level"] == "FULL_TRANSITIVE"
    after = run("check", folder, "--registry", registry.url)
    assert after.exit_code == 0, after.output
    assert f"{len(own_schemas())} of sagakit's own" in after.stdout
    assert "sagakit.Snapshot" not in after.stdout, "what is there and nobody's concern is not listed"
    with ConfluentRegistry(registry.url) as client:
        (order,) = client.versions(f"{namespace}.Order")
        assert client.schema_id(f"{namespace}.Order", order) == subjects[f"{namespace}.Order"]["id"]
    assert json.loads(order)["fields"][1]["type"]["name"] == "Item", "the schema is self-contained"


def test_an_incompatible_schema_stops_all(registry: Served, folder: Path, namespace: str) -> None:
    assert run("register", folder, "--registry", registry.url).exit_code == 0
    write(folder, "Item", namespace, [{"name": "sku", "type": "string"}, {"name": "count", "type": "int"}])
    write(folder, "New", namespace, [])
    for command in ("check", "register"):
        refused = run(command, folder, "--registry", registry.url)
        assert refused.exit_code == 1
        assert f"{namespace}.Item.count: reader_field_missing_default_value" in refused.stdout
        assert f"{namespace}.Order.item.count: reader_field_missing_default_value" in refused.stdout
        assert "give the field a default" in refused.stdout
    as_json = json.loads(run("check", folder, "--registry", registry.url, "--json").stdout)
    (item,) = [one for one in as_json if one["subject"] == f"{namespace}.Item"]
    assert item["standing"] == "incompatible"
    assert item["incompatibilities"][0]["field"] == "count"
    assert item["incompatibilities"][0]["version"] == 1
    with ConfluentRegistry(registry.url) as client:
        assert client.versions(f"{namespace}.New") == (), "nothing is registered if one is refused"
    write(folder, "Item", namespace, [{"name": "sku", "type": "string"}, {"name": "n", "type": "int", "default": 1}])
    mended = run("register", folder, "--registry", registry.url)
    assert mended.exit_code == 0, mended.output
    assert "registered now" in mended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["check"], exits.WRONG, "not set: SAGAKIT_REGISTRY_URL"),
        (["check", "nowhere", "--registry", "http://127.0.0.1:1"], exits.WRONG, "nowhere is not a folder"),
        (["check", ".", "--registry", "http://127.0.0.1:1"], exits.WRONG, "has no .avsc file"),
        (["register", "--registry", "http://127.0.0.1:1"], exits.UNREACHABLE, "http://127.0.0.1:1 does not answer"),
        (["register", "--registry", "ftp://x"], exits.WRONG, "properties cannot be used"),
    ],
)
def test_what_cannot_be_found_out_is_one_line(arguments: list[str], code: int, says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    errors = [line for line in result.stderr.splitlines() if line.startswith("sagakit: ")]
    assert len(errors) == 1
    assert says in errors[0]


def test_the_option_before_the_command_names_the_registry(
    registry: Served, folder: Path, namespace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGAKIT_REGISTRY_URL", "http://127.0.0.1:1")
    line = ["--registry-url", registry.url, "schemas"]
    assert main.run([*line, "check", str(folder), "--json"]) == exits.NO
    capsys.readouterr()
    assert main.run([*line, "register", str(folder), "--json"]) == exits.DONE
    assert f"{namespace}.Order" in {one["subject"] for one in json.loads(capsys.readouterr().out)}
    assert main.run([*line, "check", str(folder)]) == exits.DONE


def test_settings_name_the_registry(registry: Served, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAKIT_REGISTRY_URL", registry.url)
    assert run("register", folder).exit_code == 0
    assert run("check", folder).exit_code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "one record, enum or fixed"),
        ('{"type":"record","name":"R","fields":[{"name":"a","type":"Unknown"}]}', "the type 'Unknown' is unknown"),
        ('{"type":"record","name":"R","fields":[{"type":"int"}]}', "not an Avro schema"),
        ('{"type":"record","name":"R","fields":[{"name":"a"}]}', "not an Avro schema"),
        ('{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":"x"}]}', "the default of R.a"),
    ],
)
def test_a_broken_file_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "Broken.avsc").write_text(text, encoding="utf-8")
    result = run("check", tmp_path, "--registry", "http://127.0.0.1:1")
    assert result.exit_code == 2
    assert "Broken.avsc" in result.stderr
    assert says in result.stderr
