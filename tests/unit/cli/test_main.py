"""The command line as a whole: its table of commands, its help, its errors and their exit codes."""

import inspect
import re
from pathlib import Path

import pytest

from sagakit.adapters.client_properties import ClientPropertyError
from sagakit.app.service import load_service
from sagakit.cli import exits, failures, main
from sagakit.contracts.errors import UnencodableError
from sagakit.ports.log import LogUnavailableError
from sagakit.ports.registry import IncompatibleSchemaError, RegistryUnavailableError
from sagakit.ports.sending import RefusedError
from sagakit.version import __version__


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", "BOOTSTRAP", "REGISTRY_URL", "NAMESPACE", "TOPIC_PREFIX", "PARTITIONS"):
        monkeypatch.delenv(f"SAGAKIT_{name}", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == exits.DONE
    assert capsys.readouterr().out == f"sagakit {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_names_every_command_and_the_exit_codes(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == exits.DONE
    shown = capsys.readouterr().out
    for name in main._COMMANDS:
        assert f" {name} " in shown
    assert "Exit codes: 0 done" in shown


@pytest.mark.parametrize("name", list(main._COMMANDS))
def test_every_command_of_the_table_can_be_loaded_and_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([name, "--help"]) == exits.DONE
    assert f"Usage: sagakit {name}" in capsys.readouterr().out


def test_every_option_and_argument_of_every_command_has_a_help_text() -> None:
    def parameters(command: object, path: str) -> list[tuple[str, object]]:
        own = [(f"{path} {parameter.name}", parameter) for parameter in getattr(command, "params", [])]
        nested = getattr(command, "commands", {})
        return own + [found for name, sub in nested.items() for found in parameters(sub, f"{path} {name}")]

    loaded = [found for name in main._COMMANDS for found in parameters(main._load(name), name)]
    assert len(loaded) > 50
    assert [path for path, parameter in loaded if not getattr(parameter, "help", None)] == []


def test_help_texts_are_shown_as_they_are_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets are no markup, and a line of the source is no line of the terminal."""
    monkeypatch.setenv("COLUMNS", "400")
    assert main.run(["dev", "--help"]) == exits.DONE
    shown = capsys.readouterr().out
    assert "`pip install sagakit[java]`); the servers' jars are fetched" in shown
    assert "the user's data folder]" in shown


def test_examples_in_help_texts_name_services_that_exist() -> None:
    """Every `sagakit …` of a help text is a command, and a service that one names can be loaded."""
    shown = "\n".join(
        " ".join((getattr(command, "help", None) or "").split()) for name in main._COMMANDS for command in nested(name)
    )
    examples = re.findall(r"`sagakit ([^`]+)`", shown)
    assert any(example.startswith("service ") for example in examples)
    for name, *arguments in (example.split() for example in examples):
        assert name in main._COMMANDS
        for argument in arguments:
            if ":" in argument:
                assert load_service(argument).name in argument


def nested(name: str) -> list[object]:
    """A command with those below it."""
    loaded = main._load(name)
    return [loaded, *getattr(loaded, "commands", {}).values()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["topics", "check", "--nonsense"], "No such option: --nonsense"),
        (["cancel", "x"], "Missing option '--reason'"),
        (["topics", "check"], "not set: SAGAKIT_BOOTSTRAP"),
        (["--namespace", "No Good", "topics", "check"], "namespace"),
        (["--config", "missing.toml", "topics", "check"], "missing.toml, which is no file"),
        (["-X", "nonsense", "topics", "check", "--print"], "write name=value"),
        (
            ["--bootstrap", "127.0.0.1:1", "--registry-url", "http://127.0.0.1:1", "status", "17"],
            "'17' is no saga id",
        ),
        (
            ["--bootstrap", "127.0.0.1:1", "--registry-url", "http://127.0.0.1:1", "-X", "acks=0", "topics", "check"],
            "acks cannot be set",
        ),
        (["service", "nowhere"], "module:attribute"),
        (["topics", "check", "--print", "--service", "No Good"], "'No Good' is no service name"),
        (["dev", "--directory", "/proc/nowhere"], "/proc/nowhere cannot be made"),
        (
            ["definitions", "lint", "nowhere.yaml", "--schemas", str(Path(__file__).parents[3] / "schemas")],
            "nowhere.yaml cannot be read: No such file",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_on_the_command_line_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if arguments[0] == "service":
        monkeypatch.setenv("SAGAKIT_BOOTSTRAP", "127.0.0.1:1")
        monkeypatch.setenv("SAGAKIT_REGISTRY_URL", "http://127.0.0.1:1")
    assert main.run(arguments) == exits.WRONG
    assert said in error_line(capsys)


def test_a_file_of_settings_is_read_and_the_command_line_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "mine.toml"
    settings.write_text('topic_prefix = "file."\nnamespace = "desk"\n')
    assert main.run(["--config", str(settings), "--namespace", "other", "topics", "check", "--print"]) == exits.DONE
    assert "--topic file.other.saga.inbox " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClientPropertyError("x"), exits.WRONG),
        (UnencodableError("shop.Order", ("cents",), "is no number"), exits.WRONG),
        (RegistryUnavailableError("x"), exits.UNREACHABLE),
        (LogUnavailableError("x"), exits.UNREACHABLE),
        (LogUnavailableError("x", fatal=True), exits.REFUSED),
        (RefusedError("x"), exits.REFUSED),
        (IncompatibleSchemaError("x"), exits.REFUSED),
        (exits.CommandError("x", exits.NO), exits.NO),
        (ZeroDivisionError("a bug"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_means_one_exit_code(error: Exception, code: int | None) -> None:
    assert failures.code_of(error) == code


def test_a_message_of_several_lines_becomes_one() -> None:
    assert failures.one_line(RefusedError("first\n   second")) == "first second"


def test_exit_codes_are_distinct_and_each_is_explained() -> None:
    codes = {name: value for name, value in vars(exits).items() if isinstance(value, int)}
    assert len(set(codes.values())) == len(codes) == 7
    source = inspect.getsource(exits)
    for name, value in codes.items():
        assert f'{name}: Final = {value}\n"""' in source
