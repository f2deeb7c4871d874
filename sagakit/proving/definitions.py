"""Definitions made by hand, without the saga language: for unit tables, simulation, and histories that are kept.

The expressions here are the few that a proof needs: a constant, a path into the data, one that never has a value.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sagakit.core.address import Address
from sagakit.core.definition import (
    Again,
    Command,
    Definition,
    Expression,
    Kind,
    Publication,
    RetryPolicy,
    Task,
)
from sagakit.core.values import Data, EvaluationError, Value

WITHOUT_RETRY: Final = RetryPolicy(attempts=1, backoff_ms=100, max_ms=1_000)


@dataclass(frozen=True, slots=True)
class Constant:
    """An expression that gives the same value always."""

    value: Value

    def __call__(self, _: Data, /) -> Value | EvaluationError:
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Path:
    """An expression that looks up `a.b.c` in the data; an error where something is missing on the way."""

    text: str

    def __call__(self, data: Data, /) -> Value | EvaluationError:
        """Look the path up."""
        found: Any = data
        for name in self.text.split("."):
            if not isinstance(found, Mapping) or name not in found:
                return EvaluationError(expression=self.text, column=1, message=f"no such field: {name}")
            found = found[name]
        value: Value = found
        return value


@dataclass(frozen=True, slots=True)
class Failing:
    """An expression that never has a value, as a division by zero has none."""

    message: str = "division by zero"

    def __call__(self, _: Data, /) -> Value | EvaluationError:
        """The error."""
        return EvaluationError(expression="1 / 0", column=3, message=self.message)


def command(
    name: str,
    fields: Mapping[str, Expression] | None = None,
    *,
    service: str = "warehouse",
    reply: str | None = None,
    timeout_ms: int = 1_000,
    retry: RetryPolicy = WITHOUT_RETRY,
) -> Command:
    """A command of the record type `shop.<name>`; where no reply is named, any record is one."""
    return Command(
        service=service,
        type=f"shop.{name}",
        fields=fields or {},
        reply=reply,
        timeout_ms=timeout_ms,
        retry=retry,
    )


def task(
    name: str,
    *,
    after: Iterable[str] = (),
    kind: Kind = Kind.COMPENSATABLE,
    when: Expression | None = None,
    forward: Command | None = None,
    compensate: Command | None = None,
    rejects: Iterable[str] = (),
    keep: Iterable[str] = (),
) -> Task:
    """A step, by default one command to one service, tried once, and not compensated."""
    return Task(
        address=Address.parse(name),
        kind=kind,
        after=tuple(Address.parse(before) for before in after),
        when=when,
        command=forward or command(f"Do{name}"),
        rejects=frozenset(rejects),
        keep=tuple(keep),
        compensate=compensate,
    )


def definition(
    *tasks: Task,
    name: str = "place-order",
    version: int = 1,
    again: Again = Again.NEVER,
    deadline_ms: int | None = None,
    dedupe_ms: int = 3_600_000,
    start_keep: Iterable[str] = (),
    completed: Publication | None = None,
    compensated: Publication | None = None,
) -> Definition:
    """A definition of `tasks`, each of which stands after those that it depends on."""
    return Definition(
        name=name,
        version=version,
        owner="team-orders",
        impact="high",
        start="shop.OrderPlaced",
        trigger_topic=None,
        key=Path("start.order_id"),
        again=again,
        deadline_ms=deadline_ms,
        dedupe_ms=dedupe_ms,
        start_keep=tuple(start_keep),
        tasks={task.address: task for task in tasks},
        completed=completed,
        compensated=compensated,
    )


def publication(name: str, fields: Mapping[str, Expression] | None = None) -> Publication:
    """A domain event of the record type `shop.<name>`."""
    return Publication(type=f"shop.{name}", topic="orders.events", fields=fields or {})
