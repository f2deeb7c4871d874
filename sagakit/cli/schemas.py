"""`sagakit schemas`: bring the registry and a folder of `.avsc` files together, or say how they differ.

Exit code 1: a schema is incompatible, or (`check`) not registered. The others are every command's.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sagakit.adapters.confluent_registry import ConfluentRegistry
from sagakit.app.connect import connect_registry
from sagakit.cli import failures
from sagakit.cli.context import Json, one_shot
from sagakit.contracts import registration
from sagakit.contracts.own import own_schemas
from sagakit.contracts.registration import Compared, Standing
from sagakit.contracts.schemas import load_folder

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Register Avro schemas, or check them against the registry."
)

Folder = Annotated[
    Path | None,
    typer.Argument(help="Folder of .avsc files, one named type each; without it only sagakit's own records."),
]
Url = Annotated[str | None, typer.Option("--registry", help="URL of the registry (else SAGAKIT_REGISTRY_URL).")]

_STYLES = {
    Standing.REGISTERED: "green",
    Standing.NEW_SUBJECT: "yellow",
    Standing.NEW_VERSION: "yellow",
    Standing.INCOMPATIBLE: "red",
}


@app.command()
def register(context: typer.Context, folder: Folder = None, registry: Url = None, as_json: Json = False) -> None:
    """Register the folder's schemas and sagakit's own, the used before their users; all or, if one is refused, none.

    Subjects are the records' full names. sagakit's own get FULL_TRANSITIVE compatibility, the others
    BACKWARD_TRANSITIVE.
    """
    with _errors():
        texts = _texts(folder)
        with _connected(context, registry) as client:
            compared = registration.compare(texts, client)
            broken = [one for one in compared if one.standing is Standing.INCOMPATIBLE]
            ids: Mapping[str, int] = {} if broken else registration.register(compared, client)
    _print(compared, ids, as_json)
    if broken:
        _say(f"nothing was registered: {len(broken)} of {len(compared)} schemas are incompatible")
        raise typer.Exit(1)


@app.command()
def check(context: typer.Context, folder: Folder = None, registry: Url = None, as_json: Json = False) -> None:
    """Compare the folder's schemas and sagakit's own with the registry; change nothing."""
    with _errors():
        texts = _texts(folder)
        with _connected(context, registry) as client:
            compared = registration.compare(texts, client)
    _print(compared, {}, as_json)
    missing = [one for one in compared if one.standing is not Standing.REGISTERED]
    if missing:
        incompatible = sum(one.standing is Standing.INCOMPATIBLE for one in missing)
        advice = "mend them first" if incompatible else "register them with `sagakit schemas register`"
        _say(f"{len(missing)} of {len(compared)} schemas are not registered, {incompatible} incompatible: {advice}")
        raise typer.Exit(1)


def _texts(folder: Path | None) -> Mapping[str, str]:
    """Our own schemas, then the folder's, which may hold a copy of ours."""
    own = own_schemas()
    return own if folder is None else {**own, **load_folder(folder)}


@contextmanager
def _connected(context: typer.Context, url: str | None) -> Iterator[ConfluentRegistry]:
    settings = one_shot(context, "registry_url", registry_url=url)
    with connect_registry(settings) as client:
        yield client


@contextmanager
def _errors() -> Iterator[None]:
    """One line for what went wrong, and the exit code that it means."""
    try:
        yield
    except Exception as error:
        code = failures.code_of(error)
        if code is None:
            raise
        _say(failures.one_line(error))
        raise typer.Exit(code) from error


def _say(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]sagakit:[/] {escape(text)}")


def _print(compared: tuple[Compared, ...], ids: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        print(json.dumps([_as_json(one, ids) for one in compared], indent=2))
        return
    console = Console(soft_wrap=True, highlight=False)
    # sagakit's own are many, and nobody's concern as long as they are there.
    settled = {one.subject for one in compared if one.standing is Standing.REGISTERED} & own_schemas().keys()
    for one in compared:
        if one.subject in settled:
            continue
        standing = "registered now" if one.subject in ids and _is_new(one) else one.standing.value
        console.print(f"[{_STYLES[one.standing]}]{standing:<14}[/] {escape(one.subject)}  [dim]{one.level}[/]")
        for broken in one.incompatibilities:
            where = f"{one.subject}.{broken.field}" if broken.field else one.subject
            against = f"against version {broken.version}, {broken.direction}"
            console.print(f"  {escape(where)}: {broken.rule} ({against}): {escape(broken.message)}")
    if settled:
        console.print(f"[green]{Standing.REGISTERED.value:<14}[/] {len(settled)} of sagakit's own")


def _is_new(one: Compared) -> bool:
    return one.standing in (Standing.NEW_SUBJECT, Standing.NEW_VERSION)


def _as_json(one: Compared, ids: Mapping[str, int]) -> dict[str, object]:
    return {
        "subject": one.subject,
        "level": one.level,
        "standing": one.standing.value,
        "id": ids.get(one.subject),
        "incompatibilities": [
            {
                "field": broken.field,
                "rule": broken.rule,
                "version": broken.version,
                "direction": broken.direction,
                "message": broken.message,
            }
            for broken in one.incompatibilities
        ],
    }
