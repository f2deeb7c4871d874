"""`sagakit definitions` over a definitions topic in memory."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from sagakit.cli import exits
from sagakit.cli.definitions import definitions_app
from sagakit.language.canonical import Bundle
from sagakit.language.publishing import DefinitionStore, Publish, PublishedVersion, Refused, Ruling, rule_all
from sagakit.ports.registry import RegistryUnavailableError

ROOT = Path(__file__).parents[3]
PLACE_ORDER = ROOT / "services" / "orders" / "place_order.yaml"


class MemoryStore:
    """Published definitions in memory."""

    def __init__(self) -> None:
        self.versions: list[PublishedVersion] = []

    def published(self) -> list[PublishedVersion]:
        return list(self.versions)

    def publish(self, bundles: Sequence[Bundle], by: str) -> list[Ruling]:
        rulings = rule_all(self.versions, bundles)
        if not any(isinstance(ruling, Refused) for ruling in rulings):
            self.versions += [
                PublishedVersion(
                    name=new.bundle.name,
                    version=new.bundle.version,
                    canonical=new.bundle.canonical,
                    hash=new.bundle.hash,
                    source=new.bundle.source,
                )
                for new in rulings
                if isinstance(new, Publish)
            ]
        return rulings


class AwayStore:
    """What is published cannot be reached."""

    def published(self) -> list[PublishedVersion]:
        raise RegistryUnavailableError("no registry answers")

    def publish(self, bundles: Sequence[Bundle], by: str) -> list[Ruling]:
        raise RegistryUnavailableError("no registry answers")


def run(*arguments: str, store: DefinitionStore | None = None) -> Result:
    def open_store(_: typer.Context) -> DefinitionStore:
        assert store is not None, "this command needs nothing that is published"
        return store

    return CliRunner().invoke(definitions_app(open_store), list(arguments), env={"COLUMNS": "400"})


@pytest.fixture
def schemas() -> str:
    return str(ROOT / "schemas")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    file = tmp_path / "broken.yaml"
    text = PLACE_ORDER.read_text(encoding="utf-8")
    file.write_text(text.replace("key: start.order_id", "key: start.order_idd"), encoding="utf-8")
    return file


def test_lint_passes_what_is_right(schemas: str) -> None:
    result = run("lint", str(PLACE_ORDER), "--schemas", schemas)
    assert result.exit_code == 0
    assert "1 definition checked: no errors" in result.output


def test_lint_shows_place_code_and_remedy(schemas: str, broken: Path) -> None:
    result = run("lint", str(broken), "--schemas", schemas)
    assert result.exit_code == 1
    assert f"{broken}:9:12 error SK304 shop.orders.OrderPlaced has no field `order_idd`" in result.output
    assert "→ Did you mean `order_id`?" in result.output


def test_lint_speaks_json(schemas: str, broken: Path) -> None:
    result = run("lint", str(broken), str(PLACE_ORDER), "--schemas", schemas, "--json")
    assert result.exit_code == 1
    (finding,) = json.loads(result.output)
    assert (finding["code"], finding["line"], finding["column"], finding["path"]) == ("SK304", 9, 12, "key")


@pytest.mark.parametrize(
    "arguments",
    [
        ("lint", "no-such-file.yaml", "--schemas", str(ROOT / "schemas")),
        ("lint", str(PLACE_ORDER), "--schemas", "no-such"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(arguments: tuple[str, ...]) -> None:
    error = run(*arguments).exception
    assert isinstance(error, exits.CommandError)
    assert error.code == exits.WRONG
    assert "no-such" in str(error)


def test_publish_list_and_show(schemas: str) -> None:
    store = MemoryStore()
    result = run("publish", str(PLACE_ORDER), "--schemas", schemas, store=store)
    assert result.exit_code == 0, result.output
    assert "place-order version 1: published" in result.output
    again = run("publish", str(PLACE_ORDER), "--schemas", schemas, store=store)
    assert again.exit_code == 0
    assert "published already" in again.output
    assert len(store.versions) == 1

    listed = run("list", "--json", store=store)
    assert json.loads(listed.output) == [{"name": "place-order", "version": 1, "hash": store.versions[0].hash}]
    assert "team-orders" in run("list", store=store).output
    assert run("show", "place-order", store=store).output.rstrip() == PLACE_ORDER.read_text(encoding="utf-8").rstrip()
    assert json.loads(run("show", "place-order", "--canonical", store=store).output)["version"] == 1
    shown = json.loads(run("show", "place-order", "--json", store=store).output)
    assert shown == {
        "name": "place-order",
        "version": 1,
        "hash": store.versions[0].hash,
        "source": PLACE_ORDER.read_text(encoding="utf-8"),
        "canonical": json.loads(store.versions[0].canonical),
    }


def test_a_changed_body_is_refused_and_nothing_of_the_others_is_published(schemas: str, tmp_path: Path) -> None:
    store = MemoryStore()
    run("publish", str(PLACE_ORDER), "--schemas", schemas, store=store)
    text = PLACE_ORDER.read_text(encoding="utf-8")
    changed, other = tmp_path / "changed.yaml", tmp_path / "other.yaml"
    changed.write_text(text.replace("owner: team-orders", "owner: team-sales"), encoding="utf-8")
    other.write_text(text.replace("saga: place-order", "saga: place-other"), encoding="utf-8")
    result = run("publish", str(other), str(changed), "--schemas", schemas, store=store)
    assert result.exit_code == exits.REFUSED
    assert "place-order version 1: refused" in result.output
    assert '+  "owner": "team-sales"' in result.output
    assert "place-other version 1: not published" in result.output
    assert [known.name for known in store.versions] == ["place-order"]
    rows = json.loads(run("publish", str(other), str(changed), "--schemas", schemas, "--json", store=store).stdout)
    assert [row["outcome"] for row in rows] == ["withheld", "refused"]


def test_a_definition_with_errors_is_not_published(schemas: str, broken: Path) -> None:
    assert run("publish", str(broken), "--schemas", schemas, store=AwayStore()).exit_code == 1
    for_a_script = run("publish", str(broken), "--schemas", schemas, "--json", store=AwayStore())
    assert for_a_script.exit_code == 1
    assert [finding["code"] for finding in json.loads(for_a_script.output)] == ["SK304"]


def test_an_unknown_definition_is_said(schemas: str) -> None:
    store = MemoryStore()
    run("publish", str(PLACE_ORDER), "--schemas", schemas, store=store)
    for arguments, said in (
        (("nothing",), "nothing is not published"),
        (("place-order", "--version", "7"), "versions 1"),
    ):
        error = run("show", *arguments, store=store).exception
        assert isinstance(error, exits.CommandError)
        assert error.code == exits.NO
        assert said in str(error)


@pytest.mark.parametrize("arguments", [("list",), ("show", "place-order"), ("publish", str(PLACE_ORDER))])
def test_what_the_store_raises_goes_to_the_main_module(arguments: tuple[str, ...], schemas: str) -> None:
    more = ("--schemas", schemas) if arguments[0] == "publish" else ()
    error = run(*arguments, *more, store=AwayStore()).exception
    assert isinstance(error, RegistryUnavailableError)
