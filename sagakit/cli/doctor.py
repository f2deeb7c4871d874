"""`sagakit doctor`: does this broker keep the promises that sagakit stands on, and who needs which rights?"""

from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sagakit.app.doctor.acls import Acl, Part, Principals, acls
from sagakit.app.doctor.examine import examine
from sagakit.app.doctor.findings import Finding, Verdict
from sagakit.app.settings import Settings
from sagakit.cli import exits
from sagakit.cli.context import Json, one_shot, print_json, waiting
from sagakit.cli.topics import named_services

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def doctor(
    context: typer.Context,
    only_acls: Annotated[
        bool, typer.Option("--acls", help="Print the least rights that everyone needs, as kafka-acls commands.")
    ] = False,
    service: Annotated[
        list[str] | None, typer.Option("--service", help="With --acls: a service, by its name. Repeatable.")
    ] = None,
    service_app: Annotated[
        list[str] | None, typer.Option("--app", help="With --acls: a service, as module:app. Repeatable.")
    ] = None,
    trigger: Annotated[
        list[str] | None,
        typer.Option("--trigger", help="With --acls: a topic whose events start sagas. Repeatable."),
    ] = None,
    part: Annotated[
        list[Part] | None, typer.Option("--for", help="With --acls: only the rights of this part. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try out on the broker itself what exactly-once rests on, and look at its settings and at the registry.

    It makes topics and groups of its own, whose names begin with sagakit-doctor-, and removes them. It takes a few
    seconds, up to half a minute on a broker that is slow to end transactions.

    Exit code 0: all promises are kept (there may be warnings). 1: one is not. 3: the broker does not answer.
    4: it refuses the credentials.
    """
    if only_acls:
        settings, services = one_shot(context), named_services(service, service_app)
        found = acls(settings.topics, Principals(), services=services, triggers=trigger or [])
        return _print_acls(settings, [one for one in found if part is None or one.part in part], as_json)
    settings = one_shot(context, "bootstrap")
    findings: list[Finding] = []
    with waiting("asking the broker") as asking, closing(examine(settings)) as examination:
        for finding in examination:
            findings.append(finding)
            asking(f"asking the broker: {finding.check} done")
    if as_json:
        print_json([_as_json(finding) for finding in findings])
    else:
        _print(findings)
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise typer.Exit(exits.NO)
    return None


def _as_json(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "verdict": finding.verdict.value,
        "found": finding.found,
        "remedy": finding.remedy,
    }


def _print(findings: list[Finding]) -> None:
    table = Table("check", "", "found")
    for finding in findings:
        remedy = f"\n[bold]→ {escape(finding.remedy)}[/]" if finding.remedy else ""
        verdict = f"[{_STYLES[finding.verdict]}]{finding.verdict.value}[/]"
        table.add_row(escape(finding.check), verdict, escape(finding.found) + remedy)
    console = Console(highlight=False)
    console.print(table)
    counts = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    failed, warned = counts[Verdict.FAIL], counts[Verdict.WARN]
    if failed:
        console.print(
            f"[bold red]{failed} promise{'s' * (failed > 1)} not kept[/]: sagakit must not run on this broker"
        )
    elif warned:
        console.print(f"[green]every promise is kept[/], {warned} warning{'s' * (warned > 1)}")
    else:
        console.print("[green]every promise is kept[/]")


def _print_acls(settings: Settings, found: list[Acl], as_json: bool) -> None:
    if as_json:
        return print_json([one.as_dict() for one in found])
    last = ""
    for one in found:
        if one.principal != last:
            typer.echo(f"{'' if not last else chr(10)}# {one.principal}: {one.role}")
            last = one.principal
        typer.echo(one.command(settings.bootstrap or "BOOTSTRAP"))
    return None
