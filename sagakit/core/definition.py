"""A saga definition as `decide` is given it: compiled, immutable, its expressions plain callables.

The YAML that people write is parsed, type-checked and compiled by `sagakit.language`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from sagakit.core.address import Address
from sagakit.core.values import Data, EvaluationError, Opened, Value


class Expression(Protocol):
    """A compiled expression over the saga's data: total, pure, and never raising."""

    def __call__(self, data: Data, /) -> Value | EvaluationError:
        """Evaluate over `data`: `start`, one entry a step (empty until it succeeded), `failure` while undoing."""
        ...


class Resolution(Protocol):
    """Gives data as the definition's own schema of the record has it: an older writer leaves out what has a default."""

    def __call__(self, data: Data, /) -> Data:
        """The data, completed; pure, and what is given stays as it is."""
        ...


class Kind(Enum):
    """Where a step stands to the point of no return (design of sagas: compensatable, pivot, retriable)."""

    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


class Again(Enum):
    """Whether an ended key may run a second time within the dedupe window."""

    NEVER = "never"
    AFTER_COMPENSATED = "after-compensated"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """At most `attempts` commands, the first included; the pause doubles from `backoff_ms` up to `max_ms`."""

    attempts: int
    backoff_ms: int
    max_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command to a participant: its record type, how its fields are computed, how long and how often it is tried."""

    service: str
    type: str
    fields: Mapping[str, Expression]
    reply: str | None
    timeout_ms: int
    retry: RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A step: a command, what must be settled before it, and what undoes it.

    `keep` names the reply's top-level fields that some expression of the definition reads; only they stay in the
    snapshot. `rejects` are the declared rejection codes: an undeclared one is handled all the same, and is recorded.
    """

    address: Address
    kind: Kind
    after: tuple[Address, ...]
    when: Expression | None
    command: Command
    rejects: frozenset[str]
    keep: tuple[str, ...]
    compensate: Command | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A domain event that an end publishes: record type, topic (without the namespace prefix), computed fields."""

    type: str
    topic: str
    fields: Mapping[str, Expression]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One version of a saga definition.

    `tasks` stand in an order in which each comes after all that it depends on. `deadline_ms` counts from the decision
    of the start. `start_keep` names the start record's top-level fields that some expression reads. `dedupe_ms` is how
    long, in partition time, an ended saga's marker refuses to start the same message again. `resolutions` holds, by
    record type, what data of older writers goes through; a type that is not in it needs none.
    """

    name: str
    version: int
    owner: str
    impact: str
    start: str
    trigger_topic: str | None
    key: Expression
    again: Again
    deadline_ms: int | None
    dedupe_ms: int
    start_keep: tuple[str, ...]
    tasks: Mapping[Address, Task]
    completed: Publication | None
    compensated: Publication | None
    resolutions: Mapping[str, Resolution] = field(default_factory=dict)
    dependents: Mapping[Address, tuple[Address, ...]] = field(init=False)
    blank: Data = field(init=False)
    pivots: tuple[Address, ...] = field(init=False)
    backwards: tuple[Task, ...] = field(init=False)

    def __post_init__(self) -> None:
        dependents: dict[Address, tuple[Address, ...]] = dict.fromkeys(self.tasks, ())
        for task in self.tasks.values():
            for before in task.after:
                dependents[before] += (task.address,)
        object.__setattr__(self, "dependents", dependents)
        object.__setattr__(self, "blank", {str(address): {} for address in self.tasks})
        pivots = tuple(task.address for task in self.tasks.values() if task.kind is Kind.PIVOT)
        object.__setattr__(self, "pivots", pivots)
        object.__setattr__(self, "backwards", tuple(self.tasks.values())[::-1])

    def data_of(self, payload: Opened | None) -> Data:
        """What expressions may read of a payload; nothing where there is none."""
        if payload is None:
            return {}
        resolution = self.resolutions.get(payload.type)
        return payload.data if resolution is None else resolution(payload.data)
