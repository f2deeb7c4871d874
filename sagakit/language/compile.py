"""A document to a `Definition`: what `decide` is given."""

from collections.abc import Mapping
from dataclasses import replace

from sagakit.contracts.errors import SchemaError
from sagakit.contracts.resolution import compile_resolution
from sagakit.core.address import Address, InvalidAddressError
from sagakit.core.definition import (
    Again,
    Command,
    Definition,
    Expression,
    Kind,
    Publication,
    Resolution,
    RetryPolicy,
    Task,
)
from sagakit.language.document import Compensation, Document, EndEvent, Fields, Retry, Step
from sagakit.language.expressions import Compiler, ExpressionError
from sagakit.language.types import Schemas

START = "start"
FAILURE = "failure"


class InvalidDefinitionError(Exception):
    """A definition that cannot be compiled; the message says where and why."""


def records_of(document: Document) -> frozenset[str]:
    """The full names of every record that a definition starts with, sends, expects or publishes."""
    found = {document.start}
    for step in document.steps.values():
        found |= {step.command, step.reply or step.command}
        if step.compensate is not None:
            found |= {step.compensate.command, step.compensate.reply or step.compensate.command}
    found |= {event.publish for event in (document.end.completed, document.end.compensated) if event is not None}
    return frozenset(found)


def in_order(document: Document) -> list[str]:
    """The step names, each after all that it waits for; steps that do not depend on each other by name.

    Raises:
        InvalidDefinitionError: a step waits for an unknown one, or steps wait for each other in a circle.
    """
    for name, step in document.steps.items():
        unknown = sorted(set(step.after) - document.steps.keys())
        if unknown:
            raise InvalidDefinitionError(f"the step {name} waits for {unknown[0]}, which is not a step")
    left = dict(sorted(document.steps.items()))
    ordered: list[str] = []
    while left:
        ready = next((name for name, step in left.items() if not left.keys() & set(step.after)), None)
        if ready is None:
            raise InvalidDefinitionError(f"the steps {', '.join(left)} wait for each other in a circle")
        ordered.append(ready)
        del left[ready]
    return ordered


def build(document: Document, schemas: Schemas) -> Definition:
    """Compile a document. Types are not checked: that is lint's, and a definition once published must keep running.

    Raises:
        InvalidDefinitionError: if a record has no schema, an expression is none, or steps wait for each other.
    """
    for name in sorted(records_of(document)):
        if name not in schemas:
            raise InvalidDefinitionError(f"there is no schema for the record {name}")
    ordered = in_order(document)
    compiler = _Fields(Compiler([START, FAILURE, *ordered]))
    key = compiler.expression("key", document.key)
    steps = [_task(name, document.steps[name], compiler) for name in ordered]
    completed = _publication("end.completed", document.end.completed, document.on, compiler)
    compensated = _publication("end.compensated", document.end.compensated, document.on, compiler)
    # Only now is everything compiled, so only now is it known what of a reply is read.
    tasks = [replace(task, keep=compiler.kept(task.address, task.command.reply, schemas)) for task in steps]
    return Definition(
        name=document.saga,
        version=document.version,
        owner=document.owner,
        impact=document.impact,
        start=document.start,
        trigger_topic=document.on,
        key=key,
        again=Again(document.again),
        deadline_ms=document.deadline,
        dedupe_ms=document.dedupe,
        start_keep=compiler.kept(START, document.start, schemas),
        tasks={task.address: task for task in tasks},
        completed=completed,
        compensated=compensated,
        resolutions=_resolutions(document, schemas),
    )


def _resolutions(document: Document, schemas: Schemas) -> Mapping[str, Resolution]:
    """How data of older writers is completed, for the record types where that can change anything."""
    found = {}
    for name in sorted(records_of(document)):
        try:
            resolution = compile_resolution(schemas.record(name))
        except SchemaError as error:
            raise InvalidDefinitionError(f"the schema of {name} cannot be read: {error}") from error
        if resolution is not None:
            found[name] = resolution
    return found


class _Fields:
    """The compiler, saying where in the definition an expression is none."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler

    def expression(self, where: str, text: str) -> Expression:
        try:
            return self._compiler.expression(text)
        except ExpressionError as error:
            raise InvalidDefinitionError(f"{where}: {error}") from error

    def fields(self, where: str, fields: Fields) -> Mapping[str, Expression]:
        try:
            return {name: self._compiler.field(value) for name, value in sorted(fields.items())}
        except ExpressionError as error:
            raise InvalidDefinitionError(f"{where}.with: {error}") from error

    def kept(self, variable: str, record: str | None, schemas: Schemas) -> tuple[str, ...]:
        """The fields of a variable that some expression reads; all of the record's if it is read as a whole."""
        if record is None or variable not in self._compiler.read:
            return ()
        fields = self._compiler.read[variable]
        if fields is not None:
            return tuple(sorted(fields))
        try:
            return tuple(sorted(field.name for field in schemas.record(record).fields))
        except SchemaError as error:
            raise InvalidDefinitionError(f"the schema of {record} cannot be read: {error}") from error


def _task(name: str, step: Step, compiler: _Fields) -> Task:
    where = f"steps.{name}"
    try:
        address = Address.parse(name)
    except InvalidAddressError as error:
        raise InvalidDefinitionError(f"{where}: {error}") from error
    return Task(
        address=address,
        kind=Kind(step.kind),
        after=tuple(Address(before) for before in sorted(set(step.after))),
        when=None if step.when is None else compiler.expression(f"{where}.when", step.when),
        command=Command(
            service=step.service,
            type=step.command,
            fields=compiler.fields(where, step.with_),
            reply=step.reply,
            timeout_ms=step.timeout,
            retry=_retry(step.retry_policy),
        ),
        rejects=frozenset(step.rejects),
        keep=(),
        compensate=_compensation(f"{where}.compensate", step, step.compensate, compiler),
    )


def _compensation(where: str, step: Step, compensation: Compensation | None, compiler: _Fields) -> Command | None:
    if compensation is None:
        return None
    return Command(
        service=compensation.service or step.service,
        type=compensation.command,
        fields=compiler.fields(where, compensation.with_),
        reply=compensation.reply,
        timeout_ms=compensation.timeout or step.timeout,
        retry=_retry(compensation.retry),
    )


def _retry(retry: Retry) -> RetryPolicy:
    return RetryPolicy(attempts=retry.attempts, backoff_ms=retry.backoff, max_ms=retry.max)


def _publication(where: str, event: EndEvent | None, trigger: str | None, compiler: _Fields) -> Publication | None:
    if event is None:
        return None
    topic = event.to or trigger
    if topic is None:
        raise InvalidDefinitionError(
            f"{where}: the event {event.publish} has no topic: neither `to` nor `on` names one"
        )
    return Publication(type=event.publish, topic=topic, fields=compiler.fields(where, event.with_))
