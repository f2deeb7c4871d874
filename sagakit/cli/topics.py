"""`sagakit topics`: make what a namespace needs, or say how what is there differs."""

import re
import time
from typing import Annotated, Final

import typer
from rich.markup import escape

from sagakit.adapters.topics import Difference, WantedTopic, commands, compare
from sagakit.app.provisioning import Applied, ServiceTopics, apply, check, wanted_topics
from sagakit.app.settings import Settings
from sagakit.cli import exits
from sagakit.cli.context import Json, one_shot, out, print_json, waiting

_SERVICE_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")

app = typer.Typer(
    help="Make the topics of a namespace and of services, or check them.", no_args_is_help=True, add_completion=False
)

Services = Annotated[
    list[str] | None,
    typer.Option("--service", help="Also the topics of this service: commands, events, dead letters. Repeatable."),
]
Apps = Annotated[
    list[str] | None,
    typer.Option("--app", help="Also the topics of a service given as module:app, events it handles included."),
]
Others = Annotated[list[str] | None, typer.Option("--topic", help="Also this service topic, by its name. Repeatable.")]
Print = Annotated[
    bool, typer.Option("--print", help="Print the commands of Kafka's own tools instead; change nothing.")
]


@app.command("apply")
def apply_topics(
    context: typer.Context,
    service: Services = None,
    service_app: Apps = None,
    topic: Others = None,
    only_print: Print = False,
    as_json: Json = False,
) -> None:
    """Make the topics that are missing, sagakit's own schemas, and the record of the namespace.

    The partition count (SAGAKIT_PARTITIONS) is fixed for the life of a namespace. What exists is never changed:
    differences are listed, and `--print` gives the commands that mend them.

    Exit code 0: all is as it must be. 1: something that exists is different. 4: the namespace was made with another
    partition count.
    """
    settings, wanted = _wanted(context, service, service_app, topic, only_print)
    if only_print:
        return _print_commands(settings, wanted, as_json)
    with waiting("making topics"):
        applied = apply(settings, wanted, at_ms=time.time_ns() // 1_000_000)
    if as_json:
        print_json(_applied(applied))
    else:
        _print_applied(settings, applied)
    if applied.differences:
        raise typer.Exit(exits.NO)


@app.command("check")
def check_topics(
    context: typer.Context,
    service: Services = None,
    service_app: Apps = None,
    topic: Others = None,
    only_print: Print = False,
    as_json: Json = False,
) -> None:
    """Compare the topics and the record of the namespace with what they must be; change nothing.

    Exit code 0: all is as it must be. 1: something is missing or different.
    """
    settings, wanted = _wanted(context, service, service_app, topic, only_print)
    if only_print:
        return _print_commands(settings, wanted, as_json)
    with waiting("comparing topics"):
        differences = check(settings, wanted)
    if as_json:
        print_json([_difference(one) for one in differences])
    else:
        _print_differences(differences)
        if not differences:
            out.print(f"{len(wanted)} topics are as they must be")
    if differences:
        raise typer.Exit(exits.NO)


def _wanted(
    context: typer.Context,
    services: list[str] | None,
    apps: list[str] | None,
    others: list[str] | None,
    only_print: bool,
) -> tuple[Settings, tuple[WantedTopic, ...]]:
    settings = one_shot(context, *(() if only_print else ("bootstrap", "registry_url")))
    return settings, wanted_topics(settings, named_services(services, apps), others or ())


def named_services(names: list[str] | None, apps: list[str] | None) -> list[ServiceTopics]:
    """Services by their names, and those that `module:app` names, with the events that they handle.

    Raises:
        CommandError: a name is none that a definition could call a service by.
        SettingsError: a module or a service cannot be found.
    """
    for name in names or ():
        if _SERVICE_NAME.fullmatch(name) is None:
            raise exits.CommandError(
                f"{name!r} is no service name: lower-case letters, digits, - and _, a letter first", exits.WRONG
            )
    named = [ServiceTopics(name=name) for name in names or ()]
    if not apps:
        return named
    # Only here: what runs services takes a while to load, and most commands name none.
    from sagakit.app.service import load_service  # noqa: PLC0415

    for path in apps:
        loaded = load_service(path)
        named.append(ServiceTopics(name=loaded.name, event_topics=loaded.event_topics))
    return named


def _print_commands(settings: Settings, wanted: tuple[WantedTopic, ...], as_json: bool) -> None:
    """The commands that make everything from nothing: whoever prints them may have no broker at hand."""
    lines = commands(wanted, compare(wanted, {}), settings.bootstrap or "BOOTSTRAP")
    if as_json:
        return print_json(list(lines))
    for line in lines:
        typer.echo(line)
    return None


def _applied(applied: Applied) -> dict[str, object]:
    return {
        "made": list(applied.made),
        "namespace_written": applied.namespace is not None,
        "differences": [_difference(one) for one in applied.differences],
    }


def _difference(one: Difference) -> dict[str, object]:
    return {
        "topic": one.topic,
        "setting": one.setting,
        "wanted": one.wanted,
        "found": one.found,
        "fatal": one.fatal,
    }


def _print_applied(settings: Settings, applied: Applied) -> None:
    for name in applied.made:
        out.print(f"[green]made[/] {escape(name)}")
    if applied.namespace is not None:
        out.print(
            f"[green]made[/] the namespace {settings.namespace}: {applied.namespace.partitions} partitions for its life"
        )
    if not applied.made and applied.namespace is None and not applied.differences:
        out.print("nothing to do: all is as it must be")
    _print_differences(applied.differences)


def _print_differences(differences: tuple[Difference, ...]) -> None:
    for one in differences:
        style, word = ("bold red", "wrong") if one.fatal else ("yellow", "different")
        out.print(f"[{style}]{word}[/] {escape(str(one))}")
