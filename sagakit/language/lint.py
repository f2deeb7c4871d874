"""Everything that can be known to be wrong with a definition before it runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sagakit.contracts.avro_types import RecordType
from sagakit.contracts.errors import SchemaError
from sagakit.core.definition import Definition
from sagakit.language.compile import build
from sagakit.language.document import Document, EndEvent, Step
from sagakit.language.expressions import Compiler
from sagakit.language.findings import Finding, errors, ordered
from sagakit.language.graph import check_graph
from sagakit.language.parse import meant, parse
from sagakit.language.place import Place
from sagakit.language.scope import Scope, Scopes
from sagakit.language.source import Path, Source
from sagakit.language.types import Schemas


@dataclass(frozen=True, slots=True, kw_only=True)
class Linted:
    """What a text came to. `document` is None if the text could not be read as a definition."""

    document: Document | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error (warnings may be)."""
        return not errors(self.findings)


Compiled: TypeAlias = Definition | list[Finding]


def lint_text(text: str, schemas: Mapping[str, str], file: str = "definition.yaml") -> Linted:
    """Check a definition's YAML text against the schemas (self-contained Avro JSON, by full name)."""
    parsed = parse(text, file)
    if isinstance(parsed, list):
        return Linted(document=None, findings=tuple(parsed))
    return Linted(document=parsed.document, findings=tuple(lint(parsed.document, schemas, parsed.source)))


def lint(document: Document, schemas: Mapping[str, str], source: Source | None = None) -> list[Finding]:
    """Check a definition against the schemas; findings in the order of their places in `source`, if it has one."""
    source = source or Source(file=f"{document.saga} version {document.version}")
    return ordered(_Linter(document, Schemas(schemas), source).findings())


def compile_definition(document: Document, schemas: Mapping[str, str], source: Source | None = None) -> Compiled:
    """Check a definition and compile it: the definition, or its findings if there is an error among them.

    `schemas` are self-contained Avro JSON texts by full name; others than the definition's records may be among them.
    """
    findings = lint(document, schemas, source)
    return findings if errors(findings) else build(document, Schemas(schemas))


class _Linter:
    def __init__(self, document: Document, schemas: Schemas, source: Source) -> None:
        self._document = document
        self._schemas = schemas
        self._source = source
        self._scopes = Scopes(document, schemas)
        self._literals = Compiler(())

    def findings(self) -> Iterator[Finding]:
        document = self._document
        yield from check_graph(document, self._source)
        yield from self._known(("start",), document.start)
        place = self._place(self._scopes.at_start())
        place.key(("key",), document.key)
        yield from place.findings
        for name, step in document.steps.items():
            yield from self._step(("steps", name), name, step)
        yield from self._event(("end", "completed"), document.end.completed, self._scopes.completed())
        yield from self._event(("end", "compensated"), document.end.compensated, self._scopes.compensated())

    def _step(self, path: Path, name: str, step: Step) -> Iterator[Finding]:
        place = self._place(self._scopes.forward(name))
        if step.when is not None:
            place.condition((*path, "when"), step.when)
        yield from self._known((*path, "command"), step.command)
        if step.reply is not None:
            yield from self._known((*path, "reply"), step.reply)
        place.fields((*path, "with"), step.with_, self._record(step.command))
        yield from place.findings
        if step.compensate is not None:
            path = (*path, "compensate")
            place = self._place(self._scopes.compensation(name))
            yield from self._known((*path, "command"), step.compensate.command)
            if step.compensate.reply is not None:
                yield from self._known((*path, "reply"), step.compensate.reply)
            place.fields((*path, "with"), step.compensate.with_, self._record(step.compensate.command))
            yield from place.findings

    def _event(self, path: Path, event: EndEvent | None, scope: Scope) -> Iterator[Finding]:
        if event is None:
            return
        yield from self._known((*path, "publish"), event.publish)
        place = self._place(scope)
        place.fields((*path, "with"), event.with_, self._record(event.publish))
        yield from place.findings

    def _place(self, scope: Scope) -> Place:
        return Place(scope, self._source, self._literals)

    def _record(self, name: str) -> RecordType | None:
        try:
            return self._schemas.record(name)
        except (KeyError, SchemaError):
            return None  # reported by `_known`

    def _known(self, path: Path, name: str) -> Iterator[Finding]:
        """That a record has a schema that can be read."""
        if name not in self._schemas:
            remedy = f"{meant(name, self._schemas)} Or add its schema to the folder of schemas."
            yield self._source.finding("SK301", path, f"there is no schema for the record {name}", remedy)
            return
        try:
            self._schemas.record(name)
        except SchemaError as error:
            message = f"the schema of {name} cannot be used: {error}"
            yield self._source.finding("SK302", path, message, "Mend the schema.")
