"""The commands about single sagas: start, status, history, parked; cancel, retry, skip."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.markup import escape
from rich.table import Table

from sagakit.app import inspection
from sagakit.app.connect import connect
from sagakit.app.published import Catalogue, PublishedDefinition, read_catalogue
from sagakit.app.settings import Settings
from sagakit.cli import exits
from sagakit.cli.context import Json, one_shot, out, print_json, progress, user_name, waiting
from sagakit.client import Sent
from sagakit.core.address import Address
from sagakit.core.ids import is_saga_id
from sagakit.core.state import Early, Marker, Saga, StepStatus
from sagakit.core.values import Payload
from sagakit.proving.story import render

SOURCE = "/sagakit/cli"
"""The `ce_source` of what the command line sends."""

SagaId = Annotated[
    str | None, typer.Argument(help="The saga's id; or give --definition and --key.", show_default=False)
]
Definition = Annotated[str | None, typer.Option("--definition", "-d", help="The saga's definition.")]
Key = Annotated[str | None, typer.Option("--key", "-k", help="The saga's business key.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it goes into the saga's history.", show_default=False)]
Actor = Annotated[str | None, typer.Option("--actor", help="Who; by default the user of the operating system.")]
Ticket = Annotated[str | None, typer.Option("--ticket", help="The ticket that this belongs to.")]
JsonFile = Annotated[
    Path, typer.Option("--payload", help="The start record's fields, as JSON; - reads standard input.", metavar="FILE")
]


def start(
    context: typer.Context,
    definition: Annotated[str, typer.Argument(help="The definition's name.")],
    key: Annotated[str, typer.Argument(help="The business key.")],
    payload: JsonFile,
    deadline_s: Annotated[
        float | None, typer.Option(min=0.001, help="A deadline in seconds, in place of the definition's.")
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Run an ended saga another time, if its definition allows it, with the same payload."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a saga by hand.

    The payload is written with the schema of the start record that the newest version of the definition was published
    with. The same start sent twice starts once. The command returns when the start is durable; `sagakit status` tells
    what has become of it.
    """
    settings = one_shot(context, "bootstrap", "registry_url")
    data = _read_json(payload)
    with waiting("starting"):
        published = _newest(read_catalogue(settings), definition)
        record = published.compiled().start
        with connect(settings, source=SOURCE) as client:
            sent = client.start(
                definition,
                key,
                client.compose.payload(record, data, published.schemas[record]),
                deadline_ms=None if deadline_s is None else int(deadline_s * 1_000),
                message_id=str(uuid4()) if again else None,
            )
    _tell_sent(sent, f"start of {definition}/{key}", as_json)


def status(
    context: typer.Context,
    saga: SagaId = None,
    definition: Definition = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Tell where a saga stands.

    It reads the one partition of the state topic that the saga lives in, from its start: what it costs grows with the
    sagas in flight. Exit code 1: no such saga is known.
    """
    settings = one_shot(context, "bootstrap", "registry_url")
    saga_id = _saga_id(settings, saga, definition, key)
    with progress("reading one partition of the state topic") as told:
        found = inspection.find(settings, saga_id, told)
    if as_json:
        print_json(_found_as_json(found))
    else:
        _print_found(settings, found)
    if found.state is None:
        raise typer.Exit(exits.NO)


def history(
    context: typer.Context,
    saga: SagaId = None,
    definition: Definition = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Tell a saga's whole story: when, what, why, by whom, how long; every run of it.

    It reads the one partition of the backlog that the saga lives in. Fields that a schema marks with `sagakit.mask` are
    masked. Exit code 1: the backlog knows no such saga.
    """
    settings = one_shot(context, "bootstrap", "registry_url")
    saga_id = _saga_id(settings, saga, definition, key)
    with progress("reading one partition of the backlog") as told:
        stories = inspection.stories(settings, saga_id, told)
    if as_json:
        print_json([asdict(story) for story in stories])
    else:
        for story in stories:
            for line in render(story):
                out.print(escape(line))
    if not stories:
        raise exits.CommandError(
            f"the backlog knows no saga {saga_id}; `sagakit status` tells whether a start for it waits", exits.NO
        )


def parked(context: typer.Context, as_json: Json = False) -> None:
    """List the sagas that wait for a person, by reading the whole state topic. Exit code 1: there are some."""
    settings = one_shot(context, "bootstrap", "registry_url")
    with progress("reading the state topic") as told:
        found = list(inspection.parked(settings, told))
    if as_json:
        print_json([_saga_as_json(saga) for saga in found])
    elif not found:
        out.print("no saga waits for a person")
    else:
        table = Table("saga", "definition", "key", "what waits")
        for saga in found:
            waits = "\n".join((*([saga.parked] if saga.parked else ()), *_parked_steps(saga)))
            table.add_row(saga.saga_id, f"{saga.definition} {saga.version}", escape(saga.key), escape(waits))
        out.print(table)
    if found:
        raise typer.Exit(exits.NO)


def cancel(
    context: typer.Context,
    reason: Reason,
    saga: SagaId = None,
    definition: Definition = None,
    key: Key = None,
    step: Annotated[
        str | None, typer.Option(help="The parked pivot, once you have found out that it did not happen.")
    ] = None,
    actor: Actor = None,
    ticket: Ticket = None,
    as_json: Json = False,
) -> None:
    """Ask a saga to undo what it did. After its pivot it refuses; its history says so.

    Where the pivot is parked because nobody knows whether it happened, find out. If it did not, name it with --step:
    that says so, and the saga turns back. If it did, `sagakit skip` it with its reply.
    """
    settings, saga_id = _target(context, saga, definition, key)
    address = None if step is None else Address.parse(step)
    with waiting("cancelling"), connect(settings, source=SOURCE) as client:
        sent = client.cancel(saga_id, actor=actor or user_name(), reason=reason, ticket=ticket, step=address)
    _tell_sent(sent, f"cancel of {saga_id}", as_json)


def retry(
    context: typer.Context,
    reason: Reason,
    saga: SagaId = None,
    definition: Definition = None,
    key: Key = None,
    step: Annotated[str | None, typer.Option(help="Only this step; otherwise everything that is parked.")] = None,
    actor: Actor = None,
    ticket: Ticket = None,
    as_json: Json = False,
) -> None:
    """Let a parked saga try again: once more as often as its definition says, with the same idempotency keys."""
    settings, saga_id = _target(context, saga, definition, key)
    address = None if step is None else Address.parse(step)
    with waiting("retrying"), connect(settings, source=SOURCE) as client:
        sent = client.retry(saga_id, actor=actor or user_name(), reason=reason, ticket=ticket, step=address)
    _tell_sent(sent, f"retry of {saga_id}", as_json)


def skip(
    context: typer.Context,
    reason: Reason,
    saga: SagaId = None,
    definition: Definition = None,
    key: Key = None,
    step: Annotated[
        str | None, typer.Option(help="The step to skip; needed if several wait.", show_default=False)
    ] = None,
    reply: Annotated[
        Path | None,
        typer.Option(
            help="What stands in for the step's reply (or, at the saga's end, for its event), as JSON; - reads "
            "standard input.",
            metavar="FILE",
        ),
    ] = None,
    actor: Actor = None,
    ticket: Ticket = None,
    as_json: Json = False,
) -> None:
    """Let a saga go on as if a parked step had succeeded, or as if a parked compensation had undone it.

    Where later expressions read the step's reply, give one; the saga refuses the skip otherwise. A saga that waits at
    its end, because its event cannot be made or sent, ends without the event, or with the one that is given.
    """
    data = None if reply is None else _read_json(reply)
    settings, saga_id = _target(context, saga, definition, key)
    address = None if step is None else Address.parse(step)
    with waiting("skipping"), connect(settings, source=SOURCE) as client:
        payload: Payload | None = None
        if data is not None:
            record, schema = _stand_in(settings, saga_id, address)
            payload = client.compose.payload(record, data, schema)
        sent = client.skip(
            saga_id, step=address, actor=actor or user_name(), reason=reason, ticket=ticket, reply=payload
        )
    _tell_sent(sent, f"skip of {address or 'what waits'} in {saga_id}", as_json)


def _target(context: typer.Context, saga: str | None, definition: str | None, key: str | None) -> tuple[Settings, str]:
    settings = one_shot(context, "bootstrap", "registry_url")
    return settings, _saga_id(settings, saga, definition, key)


def _saga_id(settings: Settings, saga: str | None, definition: str | None, key: str | None) -> str:
    if (saga is None) == (definition is None) or (definition is None) != (key is None):
        raise exits.CommandError("name the saga: either its id, or --definition and --key", exits.WRONG)
    if definition is not None and key is not None:
        return inspection.saga_id_of(settings, definition, key)
    assert saga is not None
    text = saga.lower()
    if not is_saga_id(text):
        raise exits.CommandError(
            f"{saga!r} is no saga id (a UUID); to name a saga by its business key, use --definition and --key",
            exits.WRONG,
        )
    return text


def _newest(catalogue: Catalogue, name: str) -> PublishedDefinition:
    versions = [known for known in catalogue.definitions.values() if known.name == name]
    if not versions:
        there = ", ".join(sorted({known.name for known in catalogue.definitions.values()})) or "none"
        raise exits.CommandError(
            f"no definition {name!r} is published (there are: {there}); publish it with `sagakit definitions publish`",
            exits.NO,
        )
    return max(versions, key=lambda known: known.version)


def _stand_in(settings: Settings, saga_id: str, step: Address | None) -> tuple[str, str]:
    """The record that may stand in for what a live saga waits for, and its schema."""
    with progress("reading one partition of the state topic") as told:
        found = inspection.find(settings, saga_id, told)
    if not isinstance(found.state, Saga):
        raise exits.CommandError(f"saga {saga_id} is not live: there is nothing to skip", exits.NO)
    saga = found.state
    published = read_catalogue(settings).definitions.get((saga.definition, saga.version))
    if published is None:
        raise exits.CommandError(f"{saga.definition} version {saga.version} is not published any more", exits.NO)
    record = inspection.stands_in_for(published.compiled(), saga, step)
    if record is None:
        what = "nothing that one reply could stand in for; name the --step" if step is None else f"no reply at {step}"
        raise exits.CommandError(
            f"saga {saga_id} ({saga.definition} version {saga.version}) has {what}; see `sagakit status`", exits.WRONG
        )
    return record, published.schemas[record]


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        text = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text(encoding="utf-8")
        data = json.loads(text)
    except (OSError, ValueError) as error:
        raise exits.CommandError(f"{file} cannot be read as JSON: {error}", exits.WRONG) from error
    if not isinstance(data, dict):
        raise exits.CommandError(f"{file} holds JSON, but no object with the record's fields", exits.WRONG)
    return data


def _tell_sent(sent: Sent, what: str, as_json: bool) -> None:
    if as_json:
        return print_json(
            {"saga_id": sent.saga_id, "message_id": sent.message_id, **sent.placed._asdict()},
        )
    where = f"{sent.placed.topic}[{sent.placed.partition}]@{sent.placed.offset}"
    out.print(f"[green]sent[/] {escape(what)}: saga {sent.saga_id}, {escape(where)}")
    return None


def _parked_steps(saga: Saga) -> list[str]:
    """The steps that wait for a person, each with what there is to find out."""
    told = []
    for address, step in saga.steps.items():
        if step.status is StepStatus.UNDO_PARKED:
            told.append(f"{address} cannot be undone")
        elif step.status is StepStatus.PARKED:
            told.append(f"{address} {'may have happened' if step.unknown else 'cannot go on'}")
    return told


def _saga_as_json(saga: Saga) -> dict[str, Any]:
    return {
        "saga_id": saga.saga_id,
        "run": saga.run,
        "seq": saga.seq,
        "definition": saga.definition,
        "version": saga.version,
        "key": saga.key,
        "status": inspection.state_word(saga),
        "at_ms": saga.at_ms,
        "deadline_at_ms": saga.deadline_at_ms,
        "parked": saga.parked,
        "failure": None
        if saga.failure is None
        else {
            "step": saga.failure.step,
            "kind": saga.failure.kind.value,
            "code": saga.failure.code,
            "message": saga.failure.message,
        },
        "steps": {
            str(address): {
                "status": step.status.value,
                "attempt": step.attempt,
                "undo_attempt": step.undo_attempt,
                "due_at_ms": step.due_at_ms,
            }
            for address, step in saga.steps.items()
        },
    }


def _found_as_json(found: inspection.Found) -> dict[str, Any]:
    common = {
        "saga_id": found.saga_id,
        "status": inspection.state_word(found.state),
        "partition": found.partition,
        "waiting_in_inbox": found.waiting_in_inbox,
    }
    state = found.state
    if isinstance(state, Saga):
        return {**common, **_saga_as_json(state)}
    if isinstance(state, Marker):
        return {
            **common,
            "run": state.run,
            "seq": state.seq,
            "definition": state.definition,
            "version": state.version,
            "at_ms": state.at_ms,
        }
    if isinstance(state, Early):
        return {**common, "signals": [signal.name for signal in state.signals]}
    return common


def _print_found(settings: Settings, found: inspection.Found) -> None:
    state = found.state
    read = f"read: {settings.topics.state}[{found.partition}]"
    waits = f", {found.waiting_in_inbox} of its messages wait in the inbox" if found.waiting_in_inbox else ""
    if state is None:
        unknown = "not started yet" if found.waiting_in_inbox else "not known: never started, or ended too long ago"
        out.print(f"saga {found.saga_id} is {unknown}{waits} [dim]({escape(read)})[/]")
        return
    word = inspection.state_word(state)
    if isinstance(state, Early):
        names = ", ".join(signal.name for signal in state.signals)
        out.print(
            f"saga {found.saga_id} has not started; signals kept for it: {escape(names)} [dim]({escape(read)})[/]"
        )
        return
    key = f"/{state.key}" if isinstance(state, Saga) else ""
    out.print(
        f"{escape(state.definition + key)} (saga {state.saga_id}, version {state.version}, run {state.run}) is "
        f"[bold]{word}[/]{waits} [dim]({escape(read)})[/]"
    )
    if isinstance(state, Saga):
        _print_saga(state)


def _print_saga(saga: Saga) -> None:
    if saga.parked:
        out.print(f"  waits for a person: {escape(saga.parked)}")
    if saga.failure is not None:
        parts = [saga.failure.step, saga.failure.kind.value, saga.failure.code, saga.failure.message]
        out.print(f"  turned back: {escape(' '.join(part for part in parts if part))}")
    if saga.deadline_at_ms is not None:
        out.print(f"  deadline {datetime.fromtimestamp(saga.deadline_at_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC")
    for address, step in saga.steps.items():
        attempt = step.undo_attempt if step.status.value.startswith("und") else step.attempt
        out.print(f"  {address}: {step.status.value}{f', attempt {attempt}' if attempt > 1 else ''}")
