"""One saga's history as a story that a person reads at 3 a.m.: when, what, why, by whom, how long.

Pure: transitions in, lines out. Data is shown only through a `Mask`, so that what a schema marks with `sagakit.mask`
never leaves it, and data whose record type is not known is not shown at all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import orjson

from sagakit.contracts.transitions import UnknownKind
from sagakit.core import transitions as t
from sagakit.core.definition import Command, Definition
from sagakit.core.events import Control, Event, Reply, Signal, Start, Verb
from sagakit.core.transitions import Direction, Failure, Header, Transition
from sagakit.core.values import Data

Mask: TypeAlias = Callable[[str, Data], Data | None]
"""Masks the data of a record, given its full name; None when nothing of it may be shown."""

DefinitionOf: TypeAlias = Callable[[str, int], Definition | None]
"""A published definition by name and version; None when it is not known any more."""

Recorded: TypeAlias = Transition | UnknownKind
"""A record of the backlog; one of a kind that this release does not know is told by its name."""

_TIMER: Final = "timer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One transition, told.

    Attributes:
        seq: its number within the run; None outside a run.
        at_ms: when it was decided, epoch milliseconds.
        since_ms: since the line before; 0 on the first.
        step: the step that it is about.
        what: what happened.
        why: the reason, where there is one to tell.
        by: who brought it about: a person, a service, a timer, a message; None when it follows from the line before.
        took_ms: how long the attempt took that ended here.
        data: what was sent or received, masked.
    """

    seq: int | None
    at_ms: int
    since_ms: int
    step: str | None
    what: str
    why: str | None = None
    by: str | None = None
    took_ms: int | None = None
    data: Data | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One run of a saga; `run` None holds what came while no run was known.

    `outcome` is `completed`, `compensated`, `parked`, `running` or `compensating`.
    """

    saga_id: str
    run: int | None
    definition: str | None
    version: int | None
    key: str | None
    outcome: str | None
    began_at_ms: int
    took_ms: int
    lines: tuple[Line, ...]


def tell(history: Iterable[Recorded], definition_of: DefinitionOf, mask: Mask) -> list[Story]:
    """The runs of one saga, oldest first, then what belongs to no run. `history` stands in log order."""
    runs: dict[int | None, list[Recorded]] = {}
    for recorded in history:
        runs.setdefault(_header_value(recorded, "run"), []).append(recorded)
    ordered = sorted(runs, key=lambda run: (run is None, run or 0))
    return [_Teller(definition_of, mask).run(run, runs[run]) for run in ordered]


def render(story: Story) -> list[str]:
    """A story as lines of text: a heading, then one line a transition, times in UTC."""
    if story.run is None:
        heading = f"Saga {story.saga_id}: outside any run"
    else:
        name = f"{story.definition}/{story.key or '?'}" if story.definition else story.saga_id
        heading = (
            f"{name} (saga {story.saga_id}, version {story.version}, run {story.run}): "
            f"{story.outcome} after {duration(story.took_ms)}"
        )
    day = _utc(story.began_at_ms).strftime("%Y-%m-%d")
    width = max((len(line.step or "") for line in story.lines), default=0)
    return [f"{heading}, {day} UTC", *(_rendered(line, width) for line in story.lines)]


def duration(milliseconds: int) -> str:
    """A duration as people say it: `12 ms`, `1.4 s`, `3 min 4 s`, `2 h 5 min`, `3 d 1 h`."""
    if milliseconds < 1_000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1_000:.1f} s"
    seconds = milliseconds // 1_000
    for large, small, length, part in (("min", "s", 60, 1), ("h", "min", 3_600, 60), ("d", "h", 86_400, 3_600)):
        if seconds < length * (60 if length < 3_600 else 24) or large == "d":
            whole, rest = divmod(seconds, length)
            return f"{whole} {large} {rest // part} {small}" if rest // part else f"{whole} {large}"
    raise AssertionError("the last unit takes any length")


def _rendered(line: Line, width: int) -> str:
    time = _utc(line.at_ms).strftime("%H:%M:%S.%f")[:-3]
    since = f"+{duration(line.since_ms)}" if line.since_ms else ""
    text = f"  {time} {since:>10}  {line.step or '':<{width}}  {line.what}"
    if line.took_ms is not None:
        text += f" after {duration(line.took_ms)}"
    if line.why:
        text += f": {line.why}"
    if line.by:
        text += f" ({line.by})"
    if line.data:
        text += f" {orjson.dumps(line.data).decode()}"
    return text


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1_000, UTC)


def _header_value(recorded: Recorded, name: str) -> Any:
    if isinstance(recorded, UnknownKind):
        return recorded.fields.get("header", {}).get(name)
    return getattr(recorded.header, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What a kind of transition contributes to its line."""

    what: str
    why: str | None = None
    took: bool = False
    data: Data | None = None


@dataclass(slots=True)
class _Teller:
    """Tells one run. What it remembers is when each attempt was sent, and what the run has come to."""

    definition_of: DefinitionOf
    mask: Mask
    sent_at_ms: dict[tuple[str | None, Direction | None, int | None], int] = field(default_factory=dict)
    outcome: str = "running"
    direction: str = "running"
    parked: set[str | None] = field(default_factory=set)
    key: str | None = None

    def run(self, run: int | None, history: Sequence[Recorded]) -> Story:
        lines: list[Line] = []
        for recorded in history:
            before_ms = lines[-1].at_ms if lines else _header_value(recorded, "at_ms")
            lines.append(self._line(recorded, before_ms))
        # A record that is ignored may name another version than the one that runs: the start knows.
        first = next((one for one in history if isinstance(one, t.SagaStarted)), history[0])
        ended_at_ms = next(
            (one.header.at_ms for one in history if isinstance(one, t.SagaCompleted | t.SagaCompensated)),
            lines[-1].at_ms,
        )
        return Story(
            saga_id=_header_value(first, "saga_id"),
            run=run,
            definition=_header_value(first, "definition"),
            version=_header_value(first, "version"),
            key=self.key,
            outcome=None if run is None else self.outcome,
            began_at_ms=lines[0].at_ms,
            took_ms=ended_at_ms - lines[0].at_ms,
            lines=tuple(lines),
        )

    def _line(self, recorded: Recorded, before_ms: int) -> Line:
        if isinstance(recorded, UnknownKind):
            at_ms = _header_value(recorded, "at_ms") or before_ms
            return Line(
                seq=_header_value(recorded, "seq"),
                at_ms=at_ms,
                since_ms=at_ms - before_ms,
                step=_header_value(recorded, "step"),
                what=f"{recorded.name} (a kind of a later release)",
            )
        header = recorded.header
        self._note(recorded)
        told = _TELL[type(recorded)](self, recorded)
        attempt = (header.step, header.direction, header.attempt)
        sent_at_ms = self.sent_at_ms.get(attempt) if told.took else None
        return Line(
            seq=header.seq,
            at_ms=header.at_ms,
            since_ms=max(0, header.at_ms - before_ms),
            step=header.step,
            what=told.what,
            why=told.why,
            by=self._by(recorded),
            took_ms=None if sent_at_ms is None else max(0, header.at_ms - sent_at_ms),
            data=told.data,
        )

    def _note(self, one: Transition) -> None:
        """Follow what the run has come to."""
        header = one.header
        if isinstance(one, t.SagaStarted):
            self.key = one.key
        elif isinstance(one, t.StepScheduled | t.CompensationScheduled):
            self.sent_at_ms[header.step, header.direction, header.attempt] = header.at_ms
            self.parked.discard(header.step)
        elif isinstance(one, t.SagaTurnedBack):
            self.direction = "compensating"
        elif isinstance(one, t.SagaParked):
            self.parked.add(header.step)
        elif isinstance(one, t.SagaUnparked | t.StepSucceeded | t.CompensationSucceeded):
            self.parked.discard(header.step)
        if isinstance(one, t.SagaCompleted | t.SagaCompensated):
            self.outcome = "completed" if isinstance(one, t.SagaCompleted) else "compensated"
        elif self.outcome not in ("completed", "compensated"):
            self.outcome = "parked" if self.parked else self.direction

    def _by(self, one: Transition) -> str | None:
        """Who brought it about; only on the first transition of a cause, the others follow from it."""
        cause, arrived = one.header.cause, one.input
        if arrived is None:
            return None
        if cause.actor is not None:
            ticket = f", {cause.ticket}" if cause.ticket else ""
            return f"by {cause.actor}{ticket}: {cause.reason or 'no reason given'}"
        if cause.type == _TIMER:
            return _TIMER
        if isinstance(arrived, Reply):
            command = self._command(one.header)
            return None if command is None else f"from {command.service}"
        source = cause.source
        where = "" if source is None else f" at {source.topic}[{source.partition}]@{source.offset}"
        return f"message {cause.message_id}{where}"

    def _command(self, header: Header) -> Command | None:
        """The command that a transition of a step is about, where its definition is known."""
        if header.definition is None or header.version is None or header.step is None:
            return None
        definition = self.definition_of(header.definition, header.version)
        task = None if definition is None else definition.tasks.get(header.step)
        if task is None:
            return None
        return task.compensate if header.direction is Direction.COMPENSATION else task.command

    def sent(self, one: Any, what: str) -> _Told:
        command = self._command(one.header)
        to = "" if command is None else f" {command.type} to {command.service}"
        attempt = "" if one.header.attempt == 1 else f", attempt {one.header.attempt}"
        data = None if command is None else self.mask(command.type, one.data)
        return _Told(what=f"{what}{to}{attempt}", data=data)

    def received(self, arrived: Event | None) -> Data | None:
        """The data that an event brought, masked."""
        payload = arrived.payload if isinstance(arrived, Start | Reply | Signal | Control) else None
        return None if payload is None else self.mask(payload.type, payload.data)


def _started(teller: _Teller, one: t.SagaStarted) -> _Told:
    deadline = None if one.deadline_at_ms is None else f"deadline in {duration(one.deadline_at_ms - one.header.at_ms)}"
    return _Told(what="started", why=deadline, data=teller.received(one.input))


def _succeeded(teller: _Teller, one: t.StepSucceeded) -> _Told:
    skipped = isinstance(one.input, Control)
    return _Told(what="skipped by hand" if skipped else "succeeded", took=not skipped, data=teller.received(one.input))


def _undone(_: _Teller, one: t.CompensationSucceeded) -> _Told:
    skipped = isinstance(one.input, Control) and one.input.verb is Verb.SKIP
    return _Told(what="taken as undone by hand" if skipped else "undone", took=not skipped)


def _rejected(_: _Teller, one: t.StepRejected) -> _Told:
    # A code that the definition does not name is handled alike; whoever owns the definition should hear of it.
    what = "rejected" if one.declared else "rejected with an undeclared code"
    return _Told(what=what, why=" ".join(part for part in (one.code, one.message) if part), took=True)


def _failure_text(failure: Failure) -> str:
    parts = [failure.step or "", failure.kind.value, failure.code or "", failure.message or ""]
    return " ".join(part for part in parts if part)


def _retry_told(_: _Teller, one: t.StepRetryScheduled | t.CompensationRetryScheduled) -> _Told:
    return _Told(what=f"next attempt in {duration(max(0, one.due_at_ms - one.header.at_ms))}")


def _mapping_failed(_: _Teller, one: t.MappingFailed) -> _Told:
    where = f" (column {one.column})" if one.column else ""
    return _Told(what=f"{one.field} has no value", why=f"{one.expression}{where}: {one.message}")


_Tell: TypeAlias = Callable[[_Teller, Any], _Told]


def _says(what: str, *, why: str | None = None, took: bool = False) -> _Tell:
    """Tells a transition by a text with its fields in it; `why` names the field that holds the reason."""
    return lambda _, one: _Told(what=what.format(one=one), why=None if why is None else getattr(one, why), took=took)


def _says_code(what: str, code: str) -> _Tell:
    """Tells what a participant answered: the field `code`, then its message."""

    def told(_: _Teller, one: Any) -> _Told:
        text = getattr(one, code)
        return _Told(what=what, why=f"{text} {one.message}" if one.message else text, took=True)

    return told


_TELL: Final[Mapping[type[Transition], _Tell]] = {
    t.SagaStarted: _started,
    t.StartIgnored: _says("start ignored", why="reason"),
    t.SagaTurnedBack: lambda _, one: _Told(what="turns back", why=_failure_text(one.failure)),
    t.TurnBackAbandoned: _says("goes on after all", why="reason"),
    t.SagaParked: _says("PARKED, waits for a person", why="reason"),
    t.SagaUnparked: _says("goes on again"),
    t.SagaCompleted: _says("COMPLETED"),
    t.SagaCompensated: _says("COMPENSATED"),
    t.DeadlinePassed: _says("the deadline has passed"),
    t.StepScheduled: lambda teller, one: teller.sent(one, "command"),
    t.StepSkipped: _says("not needed: its condition is false"),
    t.StepSucceeded: _succeeded,
    t.StepRejected: _rejected,
    t.StepFailed: _says_code("failed, may have happened", "kind"),
    t.StepExpired: _says("expired before the service began", took=True),
    t.StepTimedOut: _says("no answer, may have happened", took=True),
    t.StepRetryScheduled: _retry_told,
    t.StepGivenUp: _says("given up", why="reason"),
    t.MappingFailed: _mapping_failed,
    t.SendFailed: _says("the {one.target} cannot be sent", why="reason"),
    t.CompensationScheduled: lambda teller, one: teller.sent(one, "undo"),
    t.CompensationSucceeded: _undone,
    t.CompensationRejected: _says_code("refuses to undo", "code"),
    t.CompensationFailed: _says_code("failed to undo", "kind"),
    t.CompensationExpired: _says("undo expired before the service began", took=True),
    t.CompensationTimedOut: _says("no answer to the undo", took=True),
    t.CompensationRetryScheduled: _retry_told,
    t.SignalKept: lambda teller, one: _Told(what=f"signal {one.name} kept", data=teller.received(one.input)),
    t.SignalExpired: _says("signal {one.name} expired"),
    t.SignalIgnored: _says("signal {one.name} ignored", why="reason"),
    t.CancelRequested: _says("cancel requested"),
    t.ControlIgnored: _says("{one.verb.value} refused", why="reason"),
    t.ReplyIgnored: _says("reply ignored", why="reason"),
    t.RecordDeadLettered: _says("record dead-lettered to {one.dead_letter_topic}", why="reason"),
}
