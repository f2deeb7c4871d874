"""The data of a definition as people write it: what the YAML holds, and what the builder makes.

These models check types, ranges and the form of names. Whether names refer to something, and whether expressions fit
the records, is checked by `sagakit.language.lint`, which knows the schemas.
"""

import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StringConstraints, WithJsonSchema

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = r"(?:[0-9]+(?:ms|s|m|h|d))+"
_DURATION_PART: Final = re.compile(r"([0-9]+)(ms|s|m|h|d)")
_PERCENT: Final = r"(?:100|[0-9]{1,2})(?:\.[0-9]+)?%"
_DURATION_MAX_MS: Final = 10 * 365 * 86_400_000


def duration_ms(value: object) -> object:
    """`1h30m` as milliseconds; anything but a text is left for pydantic to refuse.

    Raises:
        ValueError: for a text that is not a duration.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a duration: write 200ms, 5s, 15m, 1h, 7d or 1h30m")
    if isinstance(value, int):
        raise ValueError(f"a duration needs a unit: write {value}ms, {value}s or {value}m")
    if re.fullmatch(_DURATION, value) is None:
        raise ValueError(f"{value!r} is not a duration: write 200ms, 5s, 15m, 1h, 7d or 1h30m")
    total = sum(int(number) * _UNITS_MS[unit] for number, unit in _DURATION_PART.findall(value))
    if not 0 < total <= _DURATION_MAX_MS:
        raise ValueError(f"{value!r} is out of range: write a duration above zero and of at most ten years")
    return total


def duration_text(milliseconds: int) -> str:
    """The one canonical text of a duration: the largest unit that it is a whole number of."""
    for unit in ("d", "h", "m", "s"):
        if milliseconds % _UNITS_MS[unit] == 0:
            return f"{milliseconds // _UNITS_MS[unit]}{unit}"
    return f"{milliseconds}ms"


def _fraction(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(_PERCENT, value):
        fraction = float(value[:-1]) / 100
        if fraction <= 1:
            return fraction
    raise ValueError(f"{value!r} is not a share: write 1% or 0.5%")


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(
            f"an expression is a text, not {value!r}; a constant text is written in quotes within: \"'text'\""
        )
    if not value.strip():
        raise ValueError("an expression is empty: write one, or leave the key out")
    return value


_NAME: Final = r"^[a-z][a-z0-9_-]*$"
_RECORD: Final = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"

DurationMs: TypeAlias = Annotated[
    int,
    BeforeValidator(duration_ms),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION}$", "examples": ["200ms", "5s", "15m", "1h", "7d"]}),
]
"""Written as `5s`, held as milliseconds."""

Share: TypeAlias = Annotated[
    float,
    BeforeValidator(_fraction),
    WithJsonSchema({"type": "string", "pattern": f"^{_PERCENT}$", "examples": ["1%"]}),
]
"""Written as `1%`, held as 0.01."""

ExpressionText: TypeAlias = Annotated[
    str, BeforeValidator(_text), WithJsonSchema({"type": "string", "description": "A CEL expression", "minLength": 1})
]
Name: TypeAlias = Annotated[str, StringConstraints(strict=True, pattern=_NAME, max_length=100)]
StepName: TypeAlias = Annotated[str, StringConstraints(strict=True, min_length=1)]
RecordName: TypeAlias = Annotated[str, StringConstraints(strict=True, pattern=_RECORD, max_length=250)]
TopicName: TypeAlias = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-zA-Z0-9._-]+$", max_length=200)]

FieldValue: TypeAlias = Annotated[
    Any,
    WithJsonSchema(
        {
            "description": "A text is a CEL expression; other scalars are constants; mappings and lists hold these.",
            "type": ["string", "number", "boolean", "null", "object", "array"],
        }
    ),
]
"""What fills a field: plain data in which every text is an expression."""

Fields: TypeAlias = dict[Annotated[str, StringConstraints(strict=True, min_length=1)], FieldValue]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Retry(_Model):
    """At most `attempts` commands, the first included; the pause doubles from `backoff` up to `max`."""

    attempts: Annotated[StrictInt, Field(ge=1, le=1_000)]
    backoff: DurationMs = 200
    max: DurationMs = 10_000


RETRY_FORWARD: Final = Retry(attempts=3)
"""Without `retry`, before the saga turns back."""

RETRY_ONWARD: Final = Retry(attempts=10)
"""Without `retry`, where giving up needs a person: a retriable step or a compensation."""


class Budget(_Model):
    """What the owner promises of a step: alerts compare with it."""

    p99: DurationMs | None = None
    failures: Share | None = None


class Compensation(_Model):
    """What undoes a step. Without `service` and `timeout` they are the step's."""

    command: RecordName
    with_: Fields = Field(default_factory=dict, alias="with")
    service: Name | None = None
    reply: RecordName | None = None
    timeout: DurationMs | None = None
    retry: Retry = RETRY_ONWARD


class Step(_Model):
    """One step: a command to a service, and its reply."""

    service: Name
    command: RecordName
    timeout: DurationMs
    with_: Fields = Field(default_factory=dict, alias="with")
    reply: RecordName | None = None
    kind: Literal["compensatable", "pivot", "retriable"] = "compensatable"
    after: tuple[StepName, ...] = ()
    when: ExpressionText | None = None
    rejects: tuple[Annotated[str, StringConstraints(strict=True)], ...] = ()
    budget: Budget | None = None
    retry: Retry | None = None
    compensate: Compensation | None = None

    @property
    def retry_policy(self) -> Retry:
        """The step's retry, or the default of its kind."""
        return self.retry or (RETRY_ONWARD if self.kind == "retriable" else RETRY_FORWARD)


class EndEvent(_Model):
    """A domain event that is published when the saga ends. Without `to` it goes to the trigger topic `on`."""

    publish: RecordName
    to: TopicName | None = None
    with_: Fields = Field(default_factory=dict, alias="with")


class End(_Model):
    """The two ways in which a saga ends by itself."""

    completed: EndEvent | None = None
    compensated: EndEvent | None = None


class Document(_Model):
    """A saga definition."""

    saga: Name
    version: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)]
    owner: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]
    impact: Literal["low", "medium", "high", "critical"] = "medium"
    start: RecordName
    on: TopicName | None = None
    key: ExpressionText
    again: Literal["never", "after-compensated", "always"] = "never"
    dedupe: DurationMs = 3_600_000
    deadline: DurationMs | None = None
    steps: Annotated[dict[StepName, Step], Field(min_length=1)]
    end: End = End()
