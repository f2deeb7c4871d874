"""Which variables an expression may read at its place, and whether they are sure to be there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cel_expr_python import cel

from sagakit.contracts.avro_types import NULL, Field, Primitive, RecordType, Union
from sagakit.contracts.errors import SchemaError
from sagakit.language.compile import FAILURE, START
from sagakit.language.document import Document
from sagakit.language.expressions import FUNCTIONS
from sagakit.language.graph import ancestors
from sagakit.language.types import MessageTypes, Schemas

_TEXT: Final = Primitive(kind="string")
_TEXT_OR_NULL: Final = Union(branches=(NULL, _TEXT))

FAILURE_RECORD: Final = RecordType(
    name=FAILURE,
    fields=(
        Field(name="step", type=_TEXT_OR_NULL),
        Field(name="kind", type=_TEXT),
        Field(name="code", type=_TEXT_OR_NULL),
        Field(name="message", type=_TEXT_OR_NULL),
    ),
)
"""What `failure` holds while undoing: the first failure of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable at one place.

    Attributes:
        record: what it holds; None if its schema cannot be had, then nothing about it is checked.
        may_be_absent: why it may hold nothing here; None if it is sure to be there.
        refused: the code, message and remedy of the rule that keeps it from being read here; None if it may be read.
    """

    record: RecordType | None
    may_be_absent: str | None = None
    refused: tuple[str, str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The variables at one place, and the environment of the CEL checker that knows their types."""

    variables: Mapping[str, Variable]
    env: cel.Env
    messages: MessageTypes


class Scopes:
    """The scopes of one definition."""

    def __init__(self, document: Document, schemas: Schemas) -> None:
        self._document = document
        self._ancestors = ancestors(document)
        self._records: dict[str, RecordType | None] = {START: _record(schemas, document.start), FAILURE: FAILURE_RECORD}
        for name, step in document.steps.items():
            nothing = RecordType(name=f"the reply of {name} (the step declares none)")
            self._records[name] = nothing if step.reply is None else _record(schemas, step.reply)
        known = [record for record in self._records.values() if record is not None]
        self._messages = MessageTypes((record, absent) for record in known for absent in (False, True))

    def at_start(self) -> Scope:
        """Where the business key is computed: only the start record is there."""
        return self._scope((), {}, undoing=False, place="a key is computed before any step")

    def forward(self, step: str) -> Scope:
        """The step's own command and condition."""
        before = self._ancestors[step] - {step}
        return self._scope(before, self._skipped(before), undoing=False, place=f"`{step}` does not wait for it")

    def compensation(self, step: str) -> Scope:
        """What undoes the step: its own reply may be unknown."""
        before = self._ancestors[step] - {step}
        absent = self._skipped(before) | {step: f"`{step}` is undone also when its outcome is unknown"}
        return self._scope({*before, step}, absent, undoing=True, place=f"`{step}` does not wait for it")

    def completed(self) -> Scope:
        """The event of a completed saga."""
        steps = self._document.steps
        return self._scope(steps, self._skipped(steps), undoing=False, place="")

    def compensated(self) -> Scope:
        """The event of a compensated saga: how far it came is unknown."""
        steps = self._document.steps
        absent = dict.fromkeys(steps, "a saga may end compensated before it")
        return self._scope(steps, absent, undoing=True, place="")

    def _skipped(self, names: Iterable[str]) -> dict[str, str]:
        return {
            name: f"`{name}` may have been skipped (`when`)"
            for name in names
            if self._document.steps[name].when is not None
        }

    def _scope(self, readable: Iterable[str], absent: Mapping[str, str], *, undoing: bool, place: str) -> Scope:
        allowed = {START, *readable} | ({FAILURE} if undoing else set())
        variables = {
            name: Variable(
                record=record,
                may_be_absent=absent.get(name),
                refused=None if name in allowed else _refusal(name, place),
            )
            for name, record in self._records.items()
        }
        types = {
            name: cel.Type.DYN
            if variable.record is None
            else cel.Type(self._messages.name(variable.record, absent=variable.may_be_absent is not None))
            for name, variable in variables.items()
        }
        env = cel.NewEnv(descriptor_pool=self._messages.pool, variables=types, functions=FUNCTIONS)
        return Scope(variables=variables, env=env, messages=self._messages)


def _refusal(name: str, place: str) -> tuple[str, str, str]:
    if name == FAILURE:
        remedy = "Read it in `compensate` or in `end.compensated` only."
        return "SK308", "there is no failure here: the saga has not turned back", remedy
    return (
        "SK307",
        f"`{name}` cannot be read here: {place}",
        f"Read what is there before, or let it wait: `after: [{name}]`.",
    )


def _record(schemas: Schemas, name: str) -> RecordType | None:
    """The record of a name, or None if lint reports it as unknown or unreadable."""
    try:
        return schemas.record(name)
    except (KeyError, SchemaError):
        return None
