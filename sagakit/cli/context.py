"""What every command shares: the global options, the settings, and how things are printed."""

import getpass
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sagakit.app.settings import Settings
from sagakit.cli.options import Options
from sagakit.telemetry.logging import configure_logging

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]

out = Console(highlight=False, soft_wrap=True)
"""Where results go."""

err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Where everything else goes: errors, progress, log lines."""


def options_of(context: typer.Context) -> Options:
    """The global options of a running command."""
    options = context.find_root().obj
    return options if isinstance(options, Options) else Options()


def settings_of(options: Options, *required: str, **overrides: Any) -> Settings:
    """The settings of a command; `required` must be set, `overrides` are the command's own options.

    An own option that was given wins over the global one of the same name; one that was not is None, and hides nothing.

    Raises:
        SettingsError: something is wrong or missing.
    """
    given = {**options.overrides, **{name: value for name, value in overrides.items() if value is not None}}
    settings = Settings.load(config=options.config, **given)
    if options.kafka:
        properties = dict(_property(text) for text in options.kafka)
        settings = Settings.load(config=options.config, **given, kafka={**settings.kafka_properties, **properties})
    return settings.require(*required)


def log_quietly(options: Options) -> None:
    """For commands that do one thing: their errors are one line, and no client's chatter stands around it."""
    configure_logging(style="console", level=options.log_level or "critical")


def one_shot(context: typer.Context, *required: str, **overrides: Any) -> Settings:
    """The settings of a command that does one thing, its logging set up; see `settings_of`.

    Raises:
        SettingsError: something is wrong or missing.
    """
    options = options_of(context)
    settings = settings_of(options, *required, **overrides)
    log_quietly(options)
    return settings


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while the block runs, where a person is watching; told how many of how many."""
    if not err.is_terminal:
        yield lambda _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner on standard error while the block runs, where a person is watching; told what it has come to."""
    if not err.is_terminal:
        yield lambda _: None
        return
    with err.status(what) as status:
        yield status.update


def user_name() -> str:
    """Who runs this, as the operating system says."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for the user id: a container
        return f"uid {os.getuid()}"


def _property(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise typer.BadParameter(f"{text!r} is no property: write name=value")
    return name, value
