"""The command line as a whole: its table of commands, its help, its errors and their exit codes."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sagakit.adapters.client_properties import ClientPropertyError
from sagakit.app.connect import NotAdmittedError
from sagakit.app.service import load_service
from sagakit.cli import exits, failures, main
from sagakit.cli.context import settings_of
from sagakit.cli.options import Options
from sagakit.contracts.errors import UnencodableError
from sagakit.core.ids import InvalidKeyError
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
        (["--log-level", "nonsense", "dev"], "'nonsense' is not one of 'debug'"),
        (["--log-format", "nonsense", "topics", "check"], "Invalid value for '--log-format'"),
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


def leaves_with(error: Exception) -> subprocess.CompletedProcess[str]:
    """A process of `sagakit doctor` in which the command raises this error: what a shell sees of it."""
    module, kind = type(error).__module__, type(error).__name__
    values = ", ".join(map(repr, error.args))
    more = {"CommandError": ", {0.code}", "LogUnavailableError": ", fatal={0.fatal}"}.get(kind, "").format(error)
    script = f"""
import sys, types
from sagakit.cli import main

def command():
    from {module} import {kind}
    raise {kind}({values}{more})

sys.modules["sagakit.cli.raising"] = module = types.ModuleType("raising")
module.command = command
main._COMMANDS["doctor"] = main._Command("raising:command", "Raise.")
sys.argv = ["sagakit", "doctor"]
main.main()
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClientPropertyError("x"), exits.WRONG),
        (InvalidKeyError("x"), exits.WRONG),
        (RegistryUnavailableError("x"), exits.UNREACHABLE),
        (LogUnavailableError("x"), exits.UNREACHABLE),
        (LogUnavailableError("x", fatal=True), exits.REFUSED),
        (NotAdmittedError("x"), exits.REFUSED),
        (RefusedError("x"), exits.REFUSED),
        (IncompatibleSchemaError("x"), exits.REFUSED),
        (exits.CommandError("x", exits.NO), exits.NO),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_means_one_exit_code_of_the_process(error: Exception, code: int) -> None:
    left = leaves_with(error)
    assert (left.returncode, left.stdout, left.stderr) == (code, "", "sagakit: x\n")


def test_a_bug_leaves_with_its_own_exit_code_and_its_traceback() -> None:
    """1 means that the command was done and the answer is no: a script must not take a bug for an answer."""
    left = leaves_with(ZeroDivisionError("a bug"))
    assert left.returncode == exits.INTERNAL == 70
    assert left.stderr.startswith("Traceback (most recent call last):")
    assert "ZeroDivisionError: a bug" in left.stderr
    assert left.stderr.splitlines()[-1].startswith("sagakit: this is a bug")


def test_what_cannot_be_encoded_names_the_field_in_one_line() -> None:
    error = UnencodableError("shop.Order", ("cents",), "is no number")
    assert failures.code_of(error) == exits.WRONG
    assert "cents" in failures.one_line(error)


@pytest.mark.parametrize("command", ["check", "register"])
def test_schemas_go_to_the_registry_of_the_global_option(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three places that name one: the option of the command wins over the global one, that over the environment."""
    monkeypatch.setenv("SAGAKIT_REGISTRY_URL", "http://127.0.0.1:1/environment")
    line = ["--registry-url", "http://127.0.0.1:1/global", "schemas", command]
    assert main.run(line) == exits.UNREACHABLE
    assert "127.0.0.1:1/global" in error_line(capsys)
    assert main.run([*line, "--registry", "http://127.0.0.1:1/own"]) == exits.UNREACHABLE
    assert "127.0.0.1:1/own" in error_line(capsys)


GLOBAL = {
    "bootstrap": ("--bootstrap", "127.0.0.1:17"),
    "registry_url": ("--registry-url", "http://127.0.0.1:18"),
    "namespace": ("--namespace", "other"),
    "topic_prefix": ("--topic-prefix", "team."),
    "log_level": ("--log-level", "error"),
    "log_format": ("--log-format", "json"),
}


@pytest.mark.parametrize("name", list(GLOBAL))
def test_an_own_option_that_was_not_given_hides_no_global_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    option, value = GLOBAL[name]
    monkeypatch.setenv(f"SAGAKIT_{name.upper()}", "the-environment-s")
    options = Options(overrides={name: value})
    assert getattr(settings_of(options, **{name: None}), name) == value
    assert getattr(settings_of(options), name) == value
    assert option == f"--{name.replace('_', '-')}"


def test_what_a_script_would_want_is_there_as_json() -> None:
    """Every command but the two processes that run on, whose results are their log lines."""

    def leaves(command: object, path: str) -> list[tuple[str, object]]:
        below = getattr(command, "commands", {})
        return [one for name, sub in below.items() for one in leaves(sub, f"{path} {name}")] or [(path, command)]

    without = {
        path
        for name in main._COMMANDS
        for path, command in leaves(main._load(name), name)
        if not any("--json" in parameter.opts for parameter in getattr(command, "params", []))
    }
    assert without == {"orchestrator", "service"}


def test_a_message_of_several_lines_becomes_one() -> None:
    assert failures.one_line(RefusedError("first\n   second")) == "first second"


def test_exit_codes_are_distinct_and_each_is_explained() -> None:
    codes = {name: value for name, value in vars(exits).items() if isinstance(value, int)}
    assert len(set(codes.values())) == len(codes) == 7
    source = inspect.getsource(exits)
    for name, value in codes.items():
        assert f'{name}: Final = {value}\n"""' in source
