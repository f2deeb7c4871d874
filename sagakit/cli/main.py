"""`sagakit`: the command line. Each command lives in a module of its own, loaded only when it runs."""

import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from sagakit.cli import exits
from sagakit.cli.options import Options
from sagakit.version import __version__

_HELP: Final = """Run sagas on Kafka: exactly once, compensated correctly, and to be operated at 3 a.m.

Options before the command override SAGAKIT_<NAME> in the environment, which overrides sagakit.toml.

Exit codes: 0 done, or yes; 1 done, and the answer is no; 2 the command line, a setting or a file is wrong; 3 Kafka or the registry does not answer; 4 refused; 70 a bug; 130 Ctrl-C.
"""  # noqa: E501  # a paragraph of help is wrapped to the terminal, and a line break in it stays


class _Command(NamedTuple):
    place: str
    """`module:attribute`: a function, or a `typer.Typer` with commands of its own."""
    help: str


_COMMANDS: Final = {
    "demo": _Command("demo:demo", "Run hundreds of orders through a shop, and audit its books."),
    "dev": _Command("development:dev", "Run a real Kafka and registry here, for trying things out."),
    "orchestrator": _Command("processes:orchestrator", "Run an instance of the orchestrator."),
    "service": _Command("processes:service", "Run an instance of a service: module:app."),
    "doctor": _Command("doctor:doctor", "Ask a broker whether it keeps the promises that exactly-once rests on."),
    "topics": _Command("topics:app", "Make the topics of a namespace and of services, or check them."),
    "upgrade": _Command("upgrade:app", "Tell which engine level a namespace is at, or raise it."),
    "schemas": _Command("schemas:app", "Register Avro schemas, or check them against the registry."),
    "definitions": _Command("publishing:app", "Check, publish, list and show saga definitions."),
    "start": _Command("sagas:start", "Start a saga by hand."),
    "status": _Command("sagas:status", "Tell where a saga stands."),
    "history": _Command("sagas:history", "Tell a saga's whole story: when, what, why, by whom, how long."),
    "parked": _Command("sagas:parked", "List the sagas that wait for a person."),
    "cancel": _Command("sagas:cancel", "Ask a saga to undo what it did."),
    "retry": _Command("sagas:retry", "Let a parked saga try again."),
    "skip": _Command("sagas:skip", "Let a saga go on without one of its steps."),
}
"""Every command, in the order of the help. What a command needs is imported when it runs: the help has to be quick."""


class _Commands(TyperGroup):
    """Lists commands from the table, and loads the one that runs."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The names, in order."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """What the help shows of a command."""
        known = _COMMANDS.get(cmd_name)
        if known is None:
            return None
        listed = typer.Typer(add_completion=False)
        listed.command(cmd_name, help=known.help)(_listed)
        return typer.main.get_command(listed)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to run, loaded."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else _load(name), rest


def _listed() -> None:
    """Stands for a command that is not loaded yet."""


def _load(name: str) -> Any:
    module, _, attribute = _COMMANDS[name].place.partition(":")
    found = getattr(importlib.import_module(f"sagakit.cli.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        found = single
    loaded = typer.main.get_command(found)
    loaded.name = name
    _take_literally(loaded)
    return loaded


def _take_literally(command: Any) -> None:
    """Have help texts shown as they are written: brackets are no markup, and lines end where the terminal does."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    command.help = "\n\n".join(escape(" ".join(paragraph.split())) for paragraph in paragraphs)
    for parameter in command.params:
        parameter.help = escape(getattr(parameter, "help", None) or "")
    for nested in getattr(command, "commands", {}).values():
        _take_literally(nested)


app = typer.Typer(
    name="sagakit",
    help=_HELP,
    cls=_Commands,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sagakit {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    bootstrap: Annotated[str | None, typer.Option(help="Kafka's addresses, host:port,host:port.")] = None,
    registry_url: Annotated[str | None, typer.Option(help="The schema registry (Confluent API).")] = None,
    namespace: Annotated[str | None, typer.Option(help="Which sagas: part of ids and of topic names.")] = None,
    topic_prefix: Annotated[str | None, typer.Option(help="Stands before every topic name.")] = None,
    config: Annotated[Path | None, typer.Option(help="The settings file (TOML).", metavar="FILE")] = None,
    kafka: Annotated[
        list[str] | None,
        typer.Option("--kafka", "-X", metavar="NAME=VALUE", help="A librdkafka property. Repeatable."),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="The least level shown.")
    ] = None,
    log_format: Annotated[
        Literal["console", "json"] | None, typer.Option(help="Lines for people, or for machines.")
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the global options."""
    overrides = {
        "bootstrap": bootstrap,
        "registry_url": registry_url,
        "namespace": namespace,
        "topic_prefix": topic_prefix,
        "log_level": log_level,
        "log_format": log_format,
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    context.obj = Options(overrides=given, config=config, kafka=tuple(kafka or ()), log_level=log_level)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """The entry point: run a command, and leave with its exit code; a bug leaves its traceback and `exits.INTERNAL`."""
    try:
        code = run(sys.argv[1:])
    except Exception:  # noqa: BLE001 - it is told whole, and ends the process
        # Python's own exit code for it is 1, which would tell a script that the answer is no.
        traceback.print_exc()
        code = _say(
            "this is a bug in sagakit, or in the code that it was given; the traceback says where", exits.INTERNAL
        )
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run a command line; every expected error is one line on standard error.

    Returns:
        The exit code, as `sagakit.cli.exits` documents it.

    Raises:
        Exception: one that no command expects, which is a bug.
    """
    try:
        result = app(arguments, prog_name="sagakit", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return exits.INTERRUPTED
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "sagakit")
        message = " ".join(error.format_message().split())
        return _say(f"{message} (`{command} --help` tells more)", error.exit_code)
    except Exception as error:
        # Imported only now: it knows the errors of every part, and whatever raised one has loaded its part already.
        from sagakit.cli import failures  # noqa: PLC0415

        code = failures.code_of(error)
        if code is None:
            raise
        return _say(failures.one_line(error), code)
    return result if isinstance(result, int) else exits.DONE


def _say(message: str, code: int) -> int:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]sagakit:[/] {escape(message)}")
    return code


if __name__ == "__main__":
    main()
