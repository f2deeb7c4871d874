"""What the manual shows is so: its commands parse, its code compiles, its tables are complete."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sagakit.app.settings import Settings
from sagakit.cli import exits, main
from sagakit.participants import EventContext, RuntimeSettings, Service
from services.shop_models import ChargeCard, OrderConfirmed, RefundCard

pytestmark = pytest.mark.acceptance

PROJECT = Path(__file__).parents[2]
PAGES = (*sorted((PROJECT / "docs").glob("*.md")), PROJECT / "README.md", PROJECT / "CONTRIBUTING.md")
TEXTS = {page.relative_to(PROJECT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


def blocks(language: str, page: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXTS[page], re.DOTALL)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `sagakit` command that stands after a prompt: its page and its arguments."""
    for page in TEXTS:
        for block in blocks("console", page):
            for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
                words = shlex.split(line, comments=True)
                while "sagakit" in words:
                    words = words[words.index("sagakit") + 1 :]
                    end = next((place for place, word in enumerate(words) if word in ("|", ">", "&&")), len(words))
                    yield page, words[:end]


COMMANDS = list(commands())


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 20
    assert {arguments[0] for _, arguments in COMMANDS} >= {"start", "history", "skip", "cancel", "retry", "demo", "dev"}


@pytest.mark.parametrize(("page", "arguments"), COMMANDS, ids=lambda value: " ".join(value) if value else "")
def test_a_command_of_the_manual_has_the_options_that_it_is_shown_with(page: str, arguments: list[str]) -> None:
    name, *rest = arguments
    assert name in main._COMMANDS, f"{page}: sagakit {name}"
    command: Any = main._load(name)
    while nested := getattr(command, "commands", None):
        command = nested[rest.pop(0)]
    command.make_context(name, rest)


def test_commands_that_are_named_in_passing_exist() -> None:
    for page, text in TEXTS.items():
        for name, second in re.findall(r"`sagakit ([a-z]+)(?: ([a-z]+))?", text):
            assert name in main._COMMANDS, f"{page}: sagakit {name}"
            nested = getattr(main._load(name), "commands", None)
            assert nested is None or not second or second in nested, f"{page}: sagakit {name} {second}"


def test_make_has_every_target_that_is_named() -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page, text in TEXTS.items():
        named = set(re.findall(r"(?:`|\$ |^)make ([a-z]+)\b", text, re.MULTILINE))
        assert named <= targets, page


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    here = (PROJECT / page).parent
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", TEXTS[page])
    assert [link for link in links if not (here / link).exists()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_python_compiles_and_imports_what_there_is(page: str) -> None:
    for block in blocks("python", page):
        tree = ast.parse(block)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(body=[*imports], type_ignores=[]), page, "exec"), {})


def test_the_manuals_service_has_the_handlers_that_it_shows() -> None:
    service, events = blocks("python", "docs/participants.md")
    shown: dict[str, Any] = {}
    exec(service, shown)
    payments = shown["payments"]
    assert {handler.model for handler in payments.commands.values()} == {ChargeCard, RefundCard}
    notifications = Service("notifications", owner="team")
    exec(events, {"notifications": notifications, "OrderConfirmed": OrderConfirmed, "EventContext": EventContext})
    assert notifications.event_topics == ("orders.events",)


def test_the_definition_that_explains_the_keys_has_no_others_and_leaves_none_out() -> None:
    schema = json.loads((PROJECT / "docs" / "definition.schema.json").read_text(encoding="utf-8"))
    shown = YAML(typ="safe").load(blocks("yaml", "docs/definitions.md")[0])
    assert set(shown) == set(schema["properties"])
    step = next(body for name, body in schema["$defs"].items() if name == "Step")
    used = {key for one in shown["steps"].values() for key in one}
    assert used == set(step["properties"])


def test_the_settings_page_names_every_setting_and_its_file_is_read(tmp_path: Path) -> None:
    text = TEXTS["docs/operations.md"]
    table = text.split("## Settings")[1]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(Settings.model_fields)
    file = tmp_path / "shown.toml"
    file.write_text(blocks("toml", "docs/operations.md")[0], encoding="utf-8")
    read = Settings.load(config=file)
    assert read.kafka_properties["security.protocol"] == "SASL_SSL"
    assert read.registry_properties.keys() == {"basic.auth.user.info"}


def test_the_participants_page_names_every_setting_of_a_service() -> None:
    table = TEXTS["docs/participants.md"].split("| `RuntimeSettings` |")[1]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(RuntimeSettings.__dataclass_fields__)


def test_the_exit_codes_are_all_explained() -> None:
    table = TEXTS["docs/cli.md"].split("## Exit codes")[1].split("##")[0]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert codes == {value for value in vars(exits).values() if isinstance(value, int)}


def test_the_page_of_the_command_line_names_every_command() -> None:
    for name in main._COMMANDS:
        assert re.search(rf"`(?:sagakit )?{name}\b", TEXTS["docs/cli.md"]), name
