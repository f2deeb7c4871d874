"""`sagakit definitions`: check, publish, list and show saga definitions."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sagakit.contracts.errors import SchemaError
from sagakit.contracts.schemas import load_folder
from sagakit.language.canonical import bundle
from sagakit.language.findings import Finding, Severity
from sagakit.language.lint import Linted, lint_text
from sagakit.language.publishing import AlreadyPublished, Publish, Refused, Ruling, rule_all
from sagakit.ports.definitions import DefinitionStore, DefinitionsUnavailableError

OK: Final = 0
FOUND: Final = 1
"""Something is wrong with what was given: a definition with errors, a version that must not change, an unknown name."""
UNUSABLE: Final = 2
"""The command could not be carried out: wrong usage, no such file, unreadable schemas, no broker."""

SchemaFolder = Annotated[
    Path,
    typer.Option(
        "--schemas", help="The folder of the Avro schemas (.avsc), searched with all below it.", show_default=True
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Files = Annotated[list[Path], typer.Argument(help="Definition files (YAML).", show_default=False)]

_STYLES: Final = {Severity.ERROR: "bold red", Severity.WARNING: "yellow"}


def definitions_app(open_store: Callable[[], DefinitionStore]) -> typer.Typer:
    """The commands; `open_store` is called by those that need the definitions topic, and only then."""
    app = typer.Typer(name="definitions", help="Check, publish, list and show saga definitions.", no_args_is_help=True)
    commands = _Commands(open_store)
    app.command("lint")(lint)
    app.command("publish")(commands.publish)
    app.command("list")(commands.list)
    app.command("show")(commands.show)
    return app


def lint(files: Files, schemas: SchemaFolder = Path("schemas"), as_json: AsJson = False) -> None:
    """Check definitions against the schemas, without any server.

    Exit code 0: nothing worse than warnings. 1: errors were found. 2: a file or the schemas could not be read.
    """
    linted = _lint(files, _schemas(schemas))
    findings = [finding for one in linted for finding in one.findings]
    if as_json:
        typer.echo(json.dumps([_as_json(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        _print_findings(findings, len(files))
    raise typer.Exit(OK if all(one.ok for one in linted) else FOUND)


class _Commands:
    """The commands that need the definitions topic."""

    def __init__(self, open_store: Callable[[], DefinitionStore]) -> None:
        self._open_store = open_store

    def publish(self, files: Files, schemas: SchemaFolder = Path("schemas"), as_json: AsJson = False) -> None:
        """Check definitions and publish them. A version that is published never changes.

        Exit code 0: published, or there already. 1: errors were found, or a published version would change; then
        nothing of any file was published. 2: a file, the schemas or the broker could not be reached.
        """
        known_schemas = _schemas(schemas)
        linted = _lint(files, known_schemas)
        if not all(one.ok for one in linted):
            _print_findings([finding for one in linted for finding in one.findings], len(files))
            raise typer.Exit(FOUND)
        bundles = [
            bundle(one.document, file.read_text(encoding="utf-8"), known_schemas)
            for one, file in zip(linted, files, strict=True)
            if one.document is not None
        ]
        try:
            store = self._open_store()
            rulings = rule_all(store.published(), bundles)
            refused = [ruling for ruling in rulings if isinstance(ruling, Refused)]
            if not refused:
                for ruling in rulings:
                    if isinstance(ruling, Publish):
                        store.publish(ruling.bundle)
        except DefinitionsUnavailableError as error:
            _fail(str(error))
        _print_rulings(rulings, as_json=as_json)
        raise typer.Exit(FOUND if refused else OK)

    def list(self, as_json: AsJson = False) -> None:
        """List what is published: every definition and version."""
        try:
            published = sorted(self._open_store().published(), key=lambda known: (known.name, known.version))
        except DefinitionsUnavailableError as error:
            _fail(str(error))
        if as_json:
            rows = [{"name": known.name, "version": known.version, "hash": known.hash} for known in published]
            typer.echo(json.dumps(rows, indent=2))
            return
        table = Table("definition", "version", "owner", "impact", "start", "steps", "hash")
        for known in published:
            body = json.loads(known.canonical)
            steps = ", ".join(body["steps"])
            table.add_row(
                known.name, str(known.version), body["owner"], body["impact"], body["start"], steps, known.hash[:12]
            )
        Console().print(table if published else "No definition is published yet: `sagakit definitions publish <file>`.")

    def show(
        self,
        name: Annotated[str, typer.Argument(help="The definition's name.")],
        version: Annotated[int | None, typer.Option(help="The version; the newest without it.")] = None,
        canonical: Annotated[
            bool, typer.Option("--canonical", help="Print the canonical form, not the source text.")
        ] = False,
    ) -> None:
        """Print a published definition as it was written.

        Exit code 1: there is no such definition or version.
        """
        try:
            published = self._open_store().published()
        except DefinitionsUnavailableError as error:
            _fail(str(error))
        versions = {known.version: known for known in published if known.name == name}
        chosen = versions.get(version if version is not None else max(versions, default=0))
        if chosen is None:
            known = ", ".join(map(str, sorted(versions)))
            what = (
                f"{name} has no published version {version}; there are {known}"
                if versions
                else f"no {name} is published"
            )
            _complain(what)
            raise typer.Exit(FOUND)
        typer.echo(json.dumps(json.loads(chosen.canonical), indent=2) if canonical else chosen.source)


def _fail(message: str) -> NoReturn:
    """One line that says what to do, and the exit code of what could not be carried out."""
    _complain(message)
    raise typer.Exit(UNUSABLE)


def _complain(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(message)}")


def _schemas(folder: Path) -> Mapping[str, str]:
    try:
        return load_folder(folder)
    except (SchemaError, OSError) as error:
        _fail(str(error))


def _lint(files: list[Path], schemas: Mapping[str, str]) -> list[Linted]:
    linted: list[Linted] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            _fail(f"{file} cannot be read: {error}")
        linted.append(lint_text(text, schemas, str(file)))
    return linted


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
    # No highlighting and no wrapping: `file:line:column` must stay one word that terminals and editors can open.
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        style = _STYLES[finding.severity]
        place = f"{finding.file}:{finding.line}:{finding.column}"
        console.print(
            f"[bold]{escape(place)}[/] [{style}]{finding.severity.value} {finding.code}[/] {escape(finding.message)}"
        )
        console.print(f"    [dim]→ {escape(finding.remedy)}[/]")
    count = sum(finding.severity is Severity.ERROR for finding in findings)
    warnings = len(findings) - count
    checked = f"{files} definition{'' if files == 1 else 's'} checked"
    verdict = f"[bold red]{count} error{'' if count == 1 else 's'}[/]" if count else "[bold green]no errors[/]"
    also = f", {warnings} warning{'' if warnings == 1 else 's'}" if warnings else ""
    console.print(f"{checked}: {verdict}{also}")


def _print_rulings(rulings: list[Ruling], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "name": ruling.bundle.name,
                "version": ruling.bundle.version,
                "hash": ruling.bundle.hash,
                "outcome": _OUTCOMES[type(ruling)],
            }
            for ruling in rulings
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    refused = any(isinstance(ruling, Refused) for ruling in rulings)
    for ruling in rulings:
        title = f"{ruling.bundle.name} version {ruling.bundle.version}"
        match ruling:
            case Publish() if refused:
                console.print(f"{title}: [yellow]not published, because another file is refused[/]")
            case Publish():
                console.print(f"{title}: [bold green]published[/] ({ruling.bundle.hash[:12]})")
                for warning in ruling.warnings:
                    console.print(f"    [yellow]→ {escape(warning)}[/]")
            case AlreadyPublished():
                console.print(f"{title}: published already, the same")
            case Refused():
                console.print(f"{title}: [bold red]refused[/]: {escape(ruling.reason)}")
                for line in ruling.difference:
                    console.print(f"    {escape(line)}")


_OUTCOMES: Final = {Publish: "published", AlreadyPublished: "already published", Refused: "refused"}
