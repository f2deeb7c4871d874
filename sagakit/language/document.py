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
            f"{value!r} is not an expression: write a text; a constant text stands in quotes within, \"'a'\""
        )
    if not value.strip():
        raise ValueError("the expression is empty: write one, or leave the key out")
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
StepName: TypeAlias = Annotated[
    str,
    StringConstraints(strict=True, min_length=1),
    # Lint checks the form, and says it better.
    WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9_]*$"}),
]
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
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)


class Retry(_Model):
    """At most `attempts` commands, the first included; the pause doubles from `backoff` up to `max`."""

    attempts: Annotated[StrictInt, Field(ge=1, le=1_000)]
    """How many commands are sent at most, the first included."""
    backoff: DurationMs = 200
    """The first pause; 200ms without it."""
    max: DurationMs = 10_000
    """The longest pause; 10s without it."""


RETRY_FORWARD: Final = Retry(attempts=3)
"""Without `retry`, before the saga turns back."""

RETRY_ONWARD: Final = Retry(attempts=10)
"""Without `retry`, where giving up needs a person: a retriable step or a compensation."""


class Budget(_Model):
    """What the owner promises of a step: alerts compare with it."""

    p99: DurationMs | None = None
    """How long 99 of 100 replies take at most."""
    failures: Share | None = None
    """How many of the step's runs may fail: `1%`."""


class Compensation(_Model):
    """What undoes a step. It must tolerate that there is nothing to undo."""

    command: RecordName
    """The Avro record that is sent, by full name."""
    with_: Fields = Field(default_factory=dict, alias="with")
    """What fills the record, field by field. The step's own reply may be absent here."""
    service: Name | None = None
    """The service that handles it; the step's own without it."""
    reply: RecordName | None = None
    """The Avro record of the reply."""
    timeout: DurationMs | None = None
    """How long a reply may take; the step's timeout without it."""
    retry: Retry = RETRY_ONWARD
    """How often it is tried before a person is called; 10 attempts without it."""


class Step(_Model):
    """One step: a command to a service, and its reply."""

    service: Name
    """The service that handles the command; it reads `<service>.commands`."""
    command: RecordName
    """The Avro record that is sent, by full name."""
    timeout: DurationMs
    """How long a reply may take; after it the step may or may not have happened."""
    with_: Fields = Field(default_factory=dict, alias="with")
    """What fills the record, field by field."""
    reply: RecordName | None = None
    """The Avro record of the reply; without it nothing can be read of this step."""
    kind: Literal["compensatable", "pivot", "retriable"] = "compensatable"
    """`compensatable` (can be undone), `pivot` (the point of no return) or `retriable` (after it: only forward)."""
    after: tuple[StepName, ...] = ()
    """The steps that must be settled before this one starts; without it, it starts at once."""
    when: ExpressionText | None = None
    """A condition; if it is false the step is skipped."""
    rejects: tuple[Annotated[str, StringConstraints(strict=True)], ...] = ()
    """The codes with which the service may refuse: `[OUT_OF_STOCK]`."""
    budget: Budget | None = None
    """What the owner promises of this step."""
    retry: Retry | None = None
    """How often the command is sent; without it 3 attempts, 10 for a retriable step."""
    compensate: Compensation | None = None
    """What undoes the step; an explicit `null` says that there is nothing to undo."""

    @property
    def retry_policy(self) -> Retry:
        """The step's retry, or the default of its kind."""
        return self.retry or (RETRY_ONWARD if self.kind == "retriable" else RETRY_FORWARD)


class EndEvent(_Model):
    """A domain event that is published when the saga ends."""

    publish: RecordName
    """The Avro record that is published, by full name."""
    to: TopicName | None = None
    """The topic; the trigger topic `on` without it."""
    with_: Fields = Field(default_factory=dict, alias="with")
    """What fills the record, field by field."""


class End(_Model):
    """The two ways in which a saga ends by itself."""

    completed: EndEvent | None = None
    """When every step succeeded or was skipped."""
    compensated: EndEvent | None = None
    """When whatever may have happened was undone. Here any step's reply may be absent; `failure` says why."""


class Document(_Model):
    """A saga definition."""

    saga: Name
    """The name: lower-case letters, digits, dashes."""
    version: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)]
    """The version; a published one never changes."""
    owner: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]
    """Who is paged."""
    impact: Literal["low", "medium", "high", "critical"] = "medium"
    """What it means for the business when it fails; drives the severity of alerts. `medium` without it."""
    start: RecordName
    """The Avro record that starts a saga, by full name."""
    on: TopicName | None = None
    """The topic whose `start` records start sagas; without it only explicit starts do."""
    key: ExpressionText
    """The business key, of which the saga's id is derived: `start.order_id`."""
    again: Literal["never", "after-compensated", "always"] = "never"
    """Whether a key that ended may run again within the dedupe window; `never` without it."""
    dedupe: DurationMs = 3_600_000
    """How long an ended saga refuses a second start; 1h without it."""
    deadline: DurationMs | None = None
    """How long the saga may take before it is cancelled, from the decision to start it."""
    steps: Annotated[dict[StepName, Step], Field(min_length=1)]
    """The steps, by name."""
    end: End = End()
    """What is published at the end."""
