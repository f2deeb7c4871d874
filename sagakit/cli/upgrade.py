"""`sagakit upgrade`: where a namespace stands between two releases, and the step after which there is no way back."""

import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from sagakit.app.upgrading import Instance, UpgradeStatus, finalize, upgrade_status
from sagakit.cli import exits
from sagakit.cli.context import Json, one_shot, out, print_json, user_name, waiting

app = typer.Typer(
    help="Tell which engine level a namespace is at, or raise it.", no_args_is_help=True, add_completion=False
)


@app.command("status")
def status(context: typer.Context, as_json: Json = False) -> None:
    """Tell the namespace's engine level, this release's, and what each live orchestrator runs.

    Exit code 0: there is nothing to raise, or it can be raised now. 1: it cannot be raised yet; the reason is told.
    """
    settings = one_shot(context, "bootstrap", "registry_url")
    with waiting("asking who is alive"):
        found = upgrade_status(settings)
    refusal = found.refusal(found.release_level)
    if as_json:
        print_json({**asdict(found), "refusal": refusal})
    else:
        _print(found)
        _print_next(found, refusal)
    if refusal is not None:
        raise typer.Exit(exits.NO)


@app.command("finalize")
def finalize_upgrade(
    context: typer.Context,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the namespace.", show_default=False)],
    level: Annotated[int | None, typer.Option("--level", help="Up to which; by default this release's.")] = None,
    actor: Annotated[
        str | None, typer.Option("--actor", help="Who; by default the user of the operating system.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell whether it could be raised now.")] = False,
    as_json: Json = False,
) -> None:
    """Raise the namespace's engine level. From then on an older release refuses to run here: there is no way back.

    Exit code 0: it is raised, or was already. 4: not every live orchestrator runs that level; they are named.
    """
    settings = one_shot(context, "bootstrap", "registry_url")
    with waiting("asking who is alive"):
        found = upgrade_status(settings)
    wanted = found.release_level if level is None else level
    before = found.namespace.engine_level
    refusal = found.refusal(wanted)
    if refusal is not None:
        raise exits.CommandError(refusal, exits.REFUSED)
    if wanted > before and not dry_run:
        finalize(settings, found, wanted, by=actor or user_name(), because=reason, at_ms=time.time_ns() // 1_000_000)
    if as_json:
        return print_json({"from": before, "to": wanted, "raised": wanted > before and not dry_run})
    if wanted == before:
        out.print(f"nothing to do: the namespace is at engine level {before} already")
    elif dry_run:
        _print(found)
        out.print(f"the engine level can be raised from {before} to {wanted}; nothing was changed")
    else:
        out.print(f"[green]raised[/] the namespace {escape(settings.namespace)} from engine level {before} to {wanted}")
    return None


def _print(found: UpgradeStatus) -> None:
    namespace = found.namespace
    out.print(f"namespace {escape(namespace.namespace)}: engine level {namespace.engine_level}", end="")
    if namespace.raised_by is not None:
        out.print(f" (raised by {escape(namespace.raised_by)}: {escape(namespace.raised_because or '')})", end="")
    out.print(f"\nthis release: up to {found.release_level}")
    for one in found.instances:
        out.print(f"  {escape(one.name)} at {escape(one.host)}: {_level(one)}")
    if not found.instances:
        out.print("  no orchestrator is alive")


def _level(one: Instance) -> str:
    return "does not say what it runs" if one.level is None else f"up to {one.level}"


def _print_next(found: UpgradeStatus, refusal: str | None) -> None:
    if refusal is not None:
        out.print(f"[yellow]not yet[/]: {escape(refusal)}")
    elif found.release_level > found.namespace.engine_level:
        out.print("`sagakit upgrade finalize --reason …` raises it")
    else:
        out.print("nothing to raise")
