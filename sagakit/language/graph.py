"""The rules that a definition's steps keep among each other, whatever their records and expressions."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from sagakit.language.document import Compensation, Document, EndEvent, Retry, duration_text
from sagakit.language.findings import Finding
from sagakit.language.parse import meant
from sagakit.language.source import Path, Source

_STEP: Final = re.compile(r"[a-z][a-z0-9_]*")
_REJECT: Final = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*")
_VARIABLES: Final = frozenset({"start", "failure", "saga"})
_CEL: Final = (
    "as bool break bytes const continue default double duration dyn else false for function google has if "
    "import in int let list loop map namespace null null_type package return size string timestamp true "
    "type uint var void while"
)
_WORDS: Final = frozenset(_CEL.split())


def ancestors(document: Document) -> Mapping[str, frozenset[str]]:
    """The steps that are settled before a step starts: those in its `after`, theirs, and so on (not itself)."""
    found: dict[str, frozenset[str]] = {}
    for name in document.steps:
        seen: set[str] = set()
        waiting = list(document.steps[name].after)
        while waiting:
            before = waiting.pop()
            if before in document.steps and before not in seen:
                seen.add(before)
                waiting.extend(document.steps[before].after)
        found[name] = frozenset(seen)
    return found


def check_graph(document: Document, source: Source) -> Iterator[Finding]:
    """Findings about names, order, kinds, retries, deadlines and end events."""
    yield from _names(document, source)
    yield from _order(document, source)
    yield from _kinds(document, source)
    yield from _times(document, source)
    for kind, event in (("completed", document.end.completed), ("compensated", document.end.compensated)):
        yield from _event(("end", kind), event, document, source)


def _names(document: Document, source: Source) -> Iterator[Finding]:
    for name, step in document.steps.items():
        path: Path = ("steps", name)
        if name in _VARIABLES or name in _WORDS:
            what = "a variable of its own" if name in _VARIABLES else "a word of CEL"
            yield source.finding(
                "SK107", path, f"a step cannot be called `{name}`, {what}", "Rename the step.", key=True
            )
        elif _STEP.fullmatch(name) is None:
            remedy = "Use lower-case letters, digits and underscores, a letter first: `reserve_stock`."
            yield source.finding("SK106", path, f"{name!r} cannot be the name of a step", remedy, key=True)
        for index, code in enumerate(step.rejects):
            if _REJECT.fullmatch(code) is None:
                at: Path = (*path, "rejects", index)
                upper = re.sub(r"[^A-Z0-9]+", "_", code.upper()).strip("_")
                remedy = f"Write `{upper or 'OUT_OF_STOCK'}`."
                yield source.finding("SK108", at, f"the rejection code {code!r} is not UPPER_SNAKE", remedy)


def _order(document: Document, source: Source) -> Iterator[Finding]:
    above = ancestors(document)
    for name, step in document.steps.items():
        for index, before in enumerate(step.after):
            if before not in document.steps:
                message = f"`{name}` waits for `{before}`, which is not a step"
                remedy = meant(before, document.steps.keys() - {name})
                yield source.finding("SK201", ("steps", name, "after", index), message, remedy)
    reported: set[str] = set()
    for name in sorted(document.steps):
        if name in above[name] and name not in reported:
            circle = _circle(document, name)
            reported.update(circle)
            message = f"steps wait for each other in a circle: {' → '.join(circle)} (`a → b`: `a` waits for `b`)"
            remedy = "Take one of these names out of `after`."
            yield source.finding("SK202", ("steps", name, "after"), message, remedy, key=True)


def _circle(document: Document, start: str) -> list[str]:
    """A shortest way from a step back to itself, along `after`."""
    ways, seen = [[start]], {start}
    for way in ways:  # grows while it is walked: breadth first
        for before in document.steps[way[-1]].after:
            if before == start:
                return [*way, start]
            if before in document.steps and before not in seen:
                seen.add(before)
                ways.append([*way, before])
    raise AssertionError(f"{start} is among its own ancestors")


def _kinds(document: Document, source: Source) -> Iterator[Finding]:
    above = ancestors(document)
    pivots = [name for name, step in document.steps.items() if step.kind == "pivot"]
    for name in pivots[1:]:
        message = f"`{name}` is a second pivot beside `{pivots[0]}`"
        remedy = "Make one of them compensatable (before the other) or retriable (after it)."
        yield source.finding("SK203", ("steps", name, "kind"), message, remedy)
    for name, step in document.steps.items():
        path: Path = ("steps", name)
        if step.kind == "compensatable":
            if pivots and name not in above[pivots[0]]:
                message = f"`{name}` is compensatable but may run beside or after the pivot `{pivots[0]}`"
                remedy = (
                    f"Add `{name}` to what `{pivots[0]}` waits for (`after`), or make it `kind: retriable` after it."
                )
                yield source.finding("SK204", path, message, remedy, key=True)
            if step.compensate is None and "compensate" not in step.model_fields_set:
                message = f"`{name}` is compensatable but nothing undoes it"
                remedy = "Add `compensate`, or say that there is nothing to undo: `compensate: null`."
                yield source.finding("SK210", path, message, remedy, key=True)
        elif step.compensate is not None:
            message = f"`{name}` is of kind {step.kind} and is never undone, but has a compensation"
            remedy = "Remove `compensate`, or make the step compensatable."
            yield source.finding("SK206", (*path, "compensate"), message, remedy, key=True)
        if step.kind == "retriable" and not any(pivot in above[name] for pivot in pivots):
            message = f"`{name}` is retriable but no pivot comes before it"
            remedy = (
                f"Let it wait for the pivot: `after: [{pivots[0]}]`."
                if pivots
                else "Make the step before it the pivot (`kind: pivot`), or this one compensatable."
            )
            yield source.finding("SK205", (*path, "kind"), message, remedy)


def _times(document: Document, source: Source) -> Iterator[Finding]:
    for name, step in document.steps.items():
        path: Path = ("steps", name)
        yield from _retry((*path, "retry"), step.retry, source)
        if isinstance(step.compensate, Compensation):
            yield from _retry((*path, "compensate", "retry"), step.compensate.retry, source)
        if document.deadline is not None and document.deadline < step.timeout:
            message = (
                f"the saga's deadline ({duration_text(document.deadline)}) comes before the timeout of "
                f"`{name}` ({duration_text(step.timeout)})"
            )
            yield source.finding("SK209", (*path, "timeout"), message, "Shorten the timeout or lengthen the deadline.")


def _retry(path: Path, retry: Retry | None, source: Source) -> Iterator[Finding]:
    if retry is not None and retry.backoff > retry.max:
        message = f"the backoff ({duration_text(retry.backoff)}) is above the max ({duration_text(retry.max)})"
        remedy = f"Write `max: {duration_text(retry.backoff)}` or more, or a shorter backoff."
        yield source.finding("SK207", (*path, "backoff"), message, remedy)


def _event(path: Path, event: EndEvent | None, document: Document, source: Source) -> Iterator[Finding]:
    if event is not None and event.to is None and document.on is None:
        message = f"nothing says to which topic {event.publish} goes"
        yield source.finding(
            "SK208", path, message, "Add `to: <topic>` here, or `on: <topic>` to the definition.", key=True
        )
