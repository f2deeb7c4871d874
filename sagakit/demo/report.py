"""What the demo prints."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sagakit.demo.play import Moment
from sagakit.demo.stage import Death
from sagakit.demo.verdict import Account, Latencies, Parked, Verdict
from sagakit.demo.watch import Standing
from sagakit.proving.story import Story, duration, render
from services.audit import End

_GOOD: Final = "green"
_BAD: Final = "bold red"
_COMPLAINTS_SHOWN: Final = 20
_WIDE: Final = 100
"""Columns of a terminal on which nothing has to be short."""


class LiveProgress:
    """One line that tells how far the play has come. A context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24 if console.width >= _WIDE else 6),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "LiveProgress":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, moment: Moment) -> None:
        """Bring the line up to date."""
        standings = moment.standings
        running = max(0, moment.placed - moment.ended)
        parts = [
            f"under way {running}",
            f"completed {standings.get(Standing.COMPLETED, 0)}",
            f"compensated {standings.get(Standing.COMPENSATED, 0)}",
        ]
        if parked := standings.get(Standing.PARKED, 0):
            parts.append(f"parked {parked}")
        if moment.kills:
            parts.append(f"kills {moment.kills}")
        if self._task is None:
            self._task = self._progress.add_task("", total=moment.orders)
        self._progress.update(self._task, completed=moment.ended, description=" · ".join(parts))


def opening(console: Console, title: str, notice: str) -> None:
    """What the demo is about to do, and what it cannot promise."""
    console.print(Panel(Text(notice), title=title, title_align="left", border_style="cyan", box=box.ROUNDED))


def results(account: Account) -> RenderableType:
    """How the orders ended and how long they took."""
    table = _table("Orders", "", "orders", "share")

    def row(what: str, count: int, style: str = "") -> None:
        table.add_row(what, f"{count:,}", f"{count / max(1, account.orders):.0%}", style=style)

    row("completed", account.count(End.COMPLETED))
    row("compensated", account.count(End.COMPENSATED))
    for reason, count in account.compensated.items():
        row(f"  {reason}", count, "dim")
    row("parked, wait for a person", len(account.parked), _BAD if account.parked else "")
    table.add_section()
    row("placed", account.orders)
    undeclared = (
        Text(f"  {what}: {count} times, a code that the definition does not name under `rejects`", style="yellow")
        for what, count in account.undeclared.items()
    )
    parked = (_parked(one) for one in account.parked)
    return Group(table, *undeclared, *parked, "", _latencies(account.latencies))


def story(title: str, told: Story) -> RenderableType:
    """One order's story."""
    heading, *lines = render(told)
    return Group(Text(f"\n{title}", style="bold"), Text(heading), *(Text(line, style="dim") for line in lines))


def kills(deaths: Sequence[Death]) -> RenderableType:
    """Who was killed, where and when."""
    table = _table("Kills (SIGKILL)", "who", "where", "when", "process", "in work")
    for column in table.columns[:-1]:  # where it is narrow, what was in work is the first to be cut
        column.no_wrap = True
    for death in deaths:
        table.add_row(death.who, death.point, _time(death.at_ms), str(death.process_id), death.detail)
    return table


def books(verdict: Verdict) -> RenderableType:
    """The audit: what the services' own books say, beside what the sagas say."""
    account, audit, totals = verdict.account, verdict.audit, verdict.audit.books
    table = _table("Audit", "book", "the services say", "the sagas say", "")
    table.add_row(
        "money",
        f"charged {_money(totals.charged_cents)} - refunded {_money(totals.refunded_cents)} "
        f"= {_money(totals.charged_cents - totals.refunded_cents)}",
        f"confirmed {_money(totals.confirmed_cents)} + parked {_money(totals.parked_cents)} "
        f"= {_money(totals.confirmed_cents + totals.parked_cents)}",
        _mark(totals.money_balances),
    )
    table.add_row(
        "stock",
        f"taken {totals.taken_units:,} units",
        f"confirmed {totals.confirmed_units:,} + parked {totals.parked_units:,} "
        f"= {totals.confirmed_units + totals.parked_units:,} units",
        _mark(totals.stock_balances),
    )
    ended = account.count(End.COMPLETED) + account.count(End.COMPENSATED)
    told_wrong = [one for one in audit.discrepancies if one.service == "notifications"]
    table.add_row("notifications", f"{ended - len(told_wrong):,} sent once", f"{ended:,} ended", _mark(not told_wrong))
    others = len(audit.discrepancies) - len(told_wrong)
    table.add_row(
        "ledgers",
        f"{others} effects unexplained",
        f"{account.sagas:,} sagas compared one by one",
        _mark(not others),
    )
    table.add_row(
        "backlog",
        f"{len(account.complaints)} rules broken",
        f"{account.transitions:,} transitions of {account.sagas:,} sagas decided again",
        _mark(not account.complaints),
    )
    wrong = [
        *(f"{one.service}: {one.saga_id or 'a total'}: {one.what}" for one in audit.discrepancies),
        *account.complaints,
    ]
    shown = [Text(f"  {line}", style=_BAD) for line in wrong[:_COMPLAINTS_SHOWN]]
    if len(wrong) > _COMPLAINTS_SHOWN:
        shown.append(Text(f"  … and {len(wrong) - _COMPLAINTS_SHOWN} more", style=_BAD))
    return Group("", table, *shown)


def too_few_kills(console: Console, provoked: int, wanted: int) -> None:
    """Why a run whose books balance fails all the same."""
    console.print(
        f"Only {provoked} of {wanted} kills were provoked, so this proves less than was asked for: place more orders "
        "(--sagas), or more slowly (--rate).",
        style=_BAD,
    )


def doubtful_kills(console: Console, doubts: Iterable[str]) -> None:
    """The kills that did not hit what they were meant to hit."""
    for line in doubts:
        console.print(Text(f"A kill proves nothing: {line}", style=_BAD))


def closing(console: Console, verdict: Verdict) -> None:
    """The last line."""
    if verdict.passed:
        console.print("Every book balances.", style=_GOOD)
    else:
        console.print("The books do not balance; what is wrong is listed above.", style=_BAD)


def as_json(verdict: Verdict, deaths: Iterable[Death]) -> Mapping[str, Any]:
    """The verdict for scripts."""
    account, totals, latencies = verdict.account, verdict.audit.books, verdict.account.latencies
    return {
        "passed": verdict.passed,
        "orders": account.orders,
        "completed": account.count(End.COMPLETED),
        "compensated": dict(account.compensated),
        "undeclared_rejections": dict(account.undeclared),
        "parked": [
            {"order_id": one.order_id, "saga_id": one.saga_id, "reasons": [list(reason) for reason in one.reasons]}
            for one in account.parked
        ],
        "latency_ms": None
        if latencies is None
        else {name: round(getattr(latencies, name), 1) for name in ("p50", "p90", "p99", "slowest")},
        "money_cents": {
            "charged": totals.charged_cents,
            "refunded": totals.refunded_cents,
            "confirmed": totals.confirmed_cents,
            "parked": totals.parked_cents,
        },
        "stock_units": {
            "taken": totals.taken_units,
            "confirmed": totals.confirmed_units,
            "parked": totals.parked_units,
        },
        "discrepancies": [
            {"service": one.service, "saga_id": one.saga_id, "what": one.what} for one in verdict.audit.discrepancies
        ],
        "complaints": list(account.complaints),
        "transitions": account.transitions,
        "kills": [
            {
                "who": one.who,
                "point": one.point,
                "process_id": one.process_id,
                "at_ms": one.at_ms,
                "detail": one.detail,
            }
            for one in deaths
        ],
    }


def _latencies(found: Latencies | None) -> RenderableType:
    if found is None:
        return Text("No order has ended.", style=_BAD)
    table = _table("From OrderPlaced to its end event", "p50", "p90", "p99", "slowest")
    table.add_row(*(duration(round(value)) for value in (found.p50, found.p90, found.p99, found.slowest)))
    return table


def _parked(one: Parked) -> Text:
    reasons = "; ".join(f"{step or 'the saga'}: {reason}" for step, reason in one.reasons)
    return Text(f"  {one.order_id} is parked (saga {one.saga_id}): {reasons}", style=_BAD)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(
            name, justify="right" if name in ("orders", "share", "p50", "p90", "p99", "slowest") else "left"
        )
    return table


def _mark(good: bool) -> Text:
    return Text("balances", style=_GOOD) if good else Text("DOES NOT BALANCE", style=_BAD)


def _money(cents: int) -> str:
    return f"{cents / 100:,.2f}"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
