"""`sagakit definitions`: check, publish, list and show saga definitions."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from sagakit.cli import exits
from sagakit.cli.context import Json, err, out, print_json, user_name
from sagakit.contracts.errors import SchemaError
from sagakit.contracts.schemas import load_folder
from sagakit.language.canonical import bundle
from sagakit.language.findings import Finding, Severity
from sagakit.language.lint import Linted, lint_text
from sagakit.language.publishing import AlreadyPublished, DefinitionStore, Publish, Refused, Ruling

SchemaFolder = Annotated[
    Path,
    typer.Option(
        "--schemas", help="The folder of the Avro schemas (.avsc), searched with all below it.", show_default=True
    ),
]
Files = Annotated[
    list[Path],
    typer.Argument(
        help="Definition files, or folders: of those every .yaml and .yml file, with all below.", show_default=False
    ),
]
OpenStore = Callable[[typer.Context], DefinitionStore]
"""How the commands reach what is published: with the global options of the running command."""

_STYLES: Final = {Severity.ERROR: "bold red", Severity.WARNING: "yellow"}
_OUTCOMES: Final = {Publish: "published", AlreadyPublished: "unchanged", Refused: "refused"}


def definitions_app(open_store: OpenStore) -> typer.Typer:
    """The commands; `open_store` is called by those that need what is published, and only then."""
    app = typer.Typer(
        name="definitions",
        help="Check, publish, list and show saga definitions.",
        no_args_is_help=True,
        add_completion=False,
    )
    commands = _Commands(open_store)
    app.command("lint")(lint)
    app.command("publish")(commands.publish)
    app.command("list")(commands.list)
    app.command("show")(commands.show)
    return app


def lint(files: Files, schemas: SchemaFolder = Path("schemas"), as_json: Json = False) -> None:
    """Check definitions against the schemas, without any server.

    Exit code 0: nothing worse than warnings. 1: errors were found. 2: a file or the schemas could not be read.
    """
    files = _expanded(files)
    linted = _lint(files, _schemas(schemas))
    _tell_findings(linted, as_json)
    raise typer.Exit(exits.DONE if all(one.ok for one in linted) else exits.NO)


class _Commands:
    """The commands that need what is published."""

    def __init__(self, open_store: OpenStore) -> None:
        self._open_store = open_store

    def publish(
        self,
        context: typer.Context,
        files: Files,
        schemas: SchemaFolder = Path("schemas"),
        by: Annotated[
            str | None, typer.Option(help="Who publishes; by default the user of the operating system.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Check definitions and publish them, all or none. A version that is published never changes.

        Exit code 0: published, or there already. 1: errors were found. 2: a file or the schemas could not be read.
        3: Kafka or the registry does not answer. 4: a published version would change, or a topic or a schema is
        missing.
        """
        files = _expanded(files)
        known_schemas = _schemas(schemas)
        linted = _lint(files, known_schemas)
        if not all(one.ok for one in linted):
            _tell_findings(linted, as_json)
            raise typer.Exit(exits.NO)
        bundles = [
            bundle(one.document, file.read_text(encoding="utf-8"), known_schemas)
            for one, file in zip(linted, files, strict=True)
            if one.document is not None
        ]
        rulings = self._open_store(context).publish(bundles, by or user_name())
        if as_json:
            print_json([_ruling_as_json(ruling, rulings) for ruling in rulings])
        else:
            _print_rulings(rulings)
        raise typer.Exit(exits.REFUSED if _any_refused(rulings) else exits.DONE)

    def list(self, context: typer.Context, as_json: Json = False) -> None:
        """List what is published: every definition and version."""
        published = sorted(self._open_store(context).published(), key=lambda known: (known.name, known.version))
        if as_json:
            print_json([{"name": known.name, "version": known.version, "hash": known.hash} for known in published])
            return
        table = Table("definition", "version", "owner", "impact", "start", "steps", "hash")
        for column in table.columns:
            column.overflow = "fold"  # a name that is cut cannot be copied
        for known in published:
            body = json.loads(known.canonical)
            steps = ", ".join(body["steps"])
            columns = (known.name, str(known.version), body["owner"], body["impact"], body["start"], steps)
            table.add_row(*columns, known.hash[:12])
        out.print(table if published else "No definition is published yet: `sagakit definitions publish FILE`.")

    def show(
        self,
        context: typer.Context,
        name: Annotated[str, typer.Argument(help="The definition's name.")],
        version: Annotated[int | None, typer.Option(help="The version; the newest without it.")] = None,
        canonical: Annotated[
            bool, typer.Option("--canonical", help="Print the canonical form, not the source.")
        ] = False,
        as_json: Json = False,
    ) -> None:
        """Print a published definition as it was written; as JSON with its hash, its source and its canonical form.

        Exit code 1: there is no such definition or version.
        """
        versions = {known.version: known for known in self._open_store(context).published() if known.name == name}
        chosen = versions.get(version if version is not None else max(versions, default=0))
        if chosen is None:
            there = f"; there are versions {', '.join(map(str, sorted(versions)))}" if versions else ""
            what = f"{name} version {version}" if version is not None else name
            raise exits.CommandError(f"{what} is not published{there}: see `sagakit definitions list`", exits.NO)
        if as_json:
            print_json(
                {
                    "name": chosen.name,
                    "version": chosen.version,
                    "hash": chosen.hash,
                    "source": chosen.source,
                    "canonical": json.loads(chosen.canonical),
                }
            )
        else:
            typer.echo(json.dumps(json.loads(chosen.canonical), indent=2) if canonical else chosen.source)


def _schemas(folder: Path) -> Mapping[str, str]:
    try:
        return load_folder(folder)
    except (SchemaError, OSError) as error:
        raise exits.CommandError(f"the schemas cannot be read: {error}", exits.WRONG) from error


def _expanded(paths: list[Path]) -> list[Path]:
    """The files, with those of folders in their place."""
    files: list[Path] = []
    for path in paths:
        found = sorted(one for one in path.rglob("*") if one.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
        if not found:
            raise exits.CommandError(f"the folder {path} has no definition (.yaml, .yml) in it or below", exits.WRONG)
        files += found
    return files


def _lint(files: list[Path], schemas: Mapping[str, str]) -> list[Linted]:
    linted: list[Linted] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise exits.CommandError(f"the definition {file} cannot be read: {reason}", exits.WRONG) from error
        linted.append(lint_text(text, schemas, str(file)))
    return linted


def _tell_findings(linted: Sequence[Linted], as_json: bool) -> None:
    findings = [finding for one in linted for finding in one.findings]
    if as_json:
        print_json([_as_json(finding) for finding in findings])
    else:
        _print_findings(findings, len(linted))


def _as_json(finding: Finding) -> dict[str, object]:
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "path": finding.path,
        "severity": finding.severity.value,
        "code": finding.code,
        "message": finding.message,
        "remedy": finding.remedy,
    }


def _print_findings(findings: list[Finding], files: int) -> None:
    for finding in findings:
        style = _STYLES[finding.severity]
        place = f"{finding.file}:{finding.line}:{finding.column}"
        title = f"[{style}]{finding.severity.value} {finding.code}[/]"
        out.print(f"[bold]{escape(place)}[/] {title} {escape(finding.message)}")
        out.print(f"    [dim]→ {escape(finding.remedy)}[/]")
    count = sum(finding.severity is Severity.ERROR for finding in findings)
    warnings = len(findings) - count
    checked = f"{files} definition{'' if files == 1 else 's'} checked"
    verdict = f"[bold red]{count} error{'' if count == 1 else 's'}[/]" if count else "[bold green]no errors[/]"
    also = f", {warnings} warning{'' if warnings == 1 else 's'}" if warnings else ""
    out.print(f"{checked}: {verdict}{also}")


def _ruling_as_json(ruling: Ruling, rulings: Sequence[Ruling]) -> dict[str, object]:
    withheld = isinstance(ruling, Publish) and _any_refused(rulings)
    row: dict[str, object] = {
        "name": ruling.bundle.name,
        "version": ruling.bundle.version,
        "hash": ruling.bundle.hash,
        "outcome": "withheld" if withheld else _OUTCOMES[type(ruling)],
    }
    if isinstance(ruling, Refused):
        row |= {"reason": ruling.reason, "difference": list(ruling.difference)}
    return row


def _any_refused(rulings: Sequence[Ruling]) -> bool:
    return any(isinstance(ruling, Refused) for ruling in rulings)


def _print_rulings(rulings: list[Ruling]) -> None:
    for ruling in rulings:
        title = f"{ruling.bundle.name} version {ruling.bundle.version}"
        match ruling:
            case Publish() if _any_refused(rulings):
                out.print(f"{title}: [yellow]not published, because another one is refused[/]")
            case Publish():
                out.print(f"{title}: [bold green]published[/] ({ruling.bundle.hash[:12]})")
                for warning in ruling.warnings:
                    out.print(f"    [yellow]→ {escape(warning)}[/]")
            case AlreadyPublished():
                out.print(f"{title}: published already, the same")
            case Refused():
                err.print(f"{title}: [bold red]refused[/]: {escape(ruling.reason)}")
                for line in ruling.difference:
                    err.print(f"    {escape(line)}")
