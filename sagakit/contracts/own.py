"""sagakit's own records: their schemas, ids, encoding and decoding.

They have no logical types, so their fields cross the wire as they are, without a conversion. Where a union has several
records, the one that it holds is named: `(full name, fields)`, in both directions.
"""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException

from sagakit.contracts import framing, schemas
from sagakit.contracts.avro_types import RecordType, parse_record
from sagakit.contracts.codec import AVRO_READ_ERRORS
from sagakit.contracts.errors import SchemaError, UndecodableError, UnknownSchemaIdError
from sagakit.contracts.nesting import compile_check
from sagakit.ports.registry import SchemaRegistry, UnknownSchemaError

NAMESPACE: Final = "sagakit"
"""The Avro namespace of all records of ours."""


def own_schemas() -> Mapping[str, str]:
    """The self-contained schema of each record of ours, by full name.

    They travel in the package; in an editable checkout they lie in `schemas/sagakit`, beside the package's folder.
    """
    packaged = files("sagakit").joinpath("schemas")
    if not packaged.is_dir():
        return schemas.load_folder(Path(__file__).resolve().parents[2] / "schemas" / "sagakit")
    texts = (
        (file.name, file.read_text(encoding="utf-8")) for file in packaged.iterdir() if file.name.endswith(".avsc")
    )
    return schemas.self_contained(schemas.read_texts(iter(sorted(texts))))


@dataclass(frozen=True, slots=True)
class OwnRecord:
    """A decoded record of ours: its name without the namespace, and its fields."""

    name: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Reader:
    """How values of one schema id are read. `resolved` is our own schema, where the writer's is another version.

    `check` is for schemas of strangers under a name of ours, with which few bytes could end the process.
    """

    name: str
    parsed: Any
    resolved: Any | None
    check: Callable[[bytes, int], None] | None


class OwnRecords:
    """Encodes and decodes sagakit's own records.

    With `register` each schema is registered where it is first needed (embedded, tests); without it the schemas must
    stand in the registry already. `prepare` asks for all of them at once, so that a process fails at its start and not
    later.
    """

    def __init__(self, registry: SchemaRegistry, register: bool = False) -> None:
        self._registry = registry
        self._register = register
        self._texts = {name.removeprefix(f"{NAMESPACE}."): text for name, text in own_schemas().items()}
        self._lock = threading.Lock()
        self._parsed: dict[str, Any] = {}
        self._ids: dict[str, int] = {}
        self._prefixes: dict[str, bytes] = {}
        self._readers: dict[int, _Reader | None] = {}

    @property
    def names(self) -> frozenset[str]:
        """The names of all records, without the namespace."""
        return frozenset(self._texts)

    def prepare(self, names: Iterable[str] | None = None) -> None:
        """Learn the schema ids of `names` (default: of all records).

        Raises:
            UnknownSchemaError: a schema is not registered; `sagakit schemas register` does it.
            RegistryUnavailableError: the registry does not answer.
        """
        for name in sorted(self._texts if names is None else names):
            self.prefix(name)

    def schema_id(self, name: str) -> int:
        """The id of a record's schema; errors as `prepare`."""
        self.prefix(name)
        return self._ids[name]

    def prefix(self, name: str) -> bytes:
        """What stands before the Avro body of a record; errors as `prepare`."""
        known = self._prefixes.get(name)
        return self._learnt(name) if known is None else known

    def name_of(self, schema_id: int) -> str | None:
        """The name of the record that a schema id belongs to, without the namespace; None for records of others.

        Raises:
            UndecodableError: the registry denies the id.
            RegistryUnavailableError: the id is not known yet and the registry does not answer.
        """
        reader = self._reader(schema_id)
        return None if reader is None else reader.name

    def encode(self, name: str, fields: Mapping[str, Any]) -> bytes:
        """The framed value of a record of which there are few; the others are written by `binary`. Errors as `prepare`.

        A field with a default may be missing.
        """
        out = BytesIO()
        out.write(self.prefix(name))
        schemaless_writer(out, self._parse(name), fields)
        return out.getvalue()

    def decode(self, value: bytes) -> OwnRecord:
        """The record that a framed value holds, with the fields of our own version of its schema.

        Raises:
            UndecodableError: the bytes are no record of ours.
            RegistryUnavailableError: the schema is not known yet and the registry does not answer.
        """
        try:
            schema_id = framing.schema_id_of(value)
        except framing.FramingError as unframed:
            raise UndecodableError(str(unframed)) from unframed
        reader = self._readers.get(schema_id) or self._reader(schema_id)
        if reader is None:
            raise UndecodableError(f"the schema {schema_id} is not of a record of sagakit")
        if reader.check is not None:
            reader.check(value, framing.PREFIX_BYTES)
        source = BytesIO(value)
        source.seek(framing.PREFIX_BYTES)
        try:
            fields: dict[str, Any] = schemaless_reader(  # type: ignore[assignment]
                source, reader.parsed, reader.resolved, return_record_name=True, return_record_name_override=True
            )
        except SchemaResolutionError as foreign:
            raise UndecodableError(f"its schema is no version of the {reader.name} of sagakit: {foreign}") from foreign
        except AVRO_READ_ERRORS as misfit:
            raise UndecodableError(
                f"the bytes do not fit the schema of {reader.name}: {type(misfit).__name__}: {misfit}"
            ) from misfit
        if source.tell() != len(value):
            raise UndecodableError(f"{len(value) - source.tell()} bytes are left over after a {reader.name}")
        return OwnRecord(reader.name, fields)

    def _parse(self, name: str) -> Any:
        if name not in self._parsed:
            text = self._texts.get(name)
            if text is None:
                raise SchemaError(f"sagakit has no record {name!r}; it has {', '.join(sorted(self._texts))}")
            self._parsed[name] = parse_schema(json.loads(text))
        return self._parsed[name]

    def _learnt(self, name: str) -> bytes:
        with self._lock:
            if name not in self._prefixes:
                parsed = self._parse(name)
                ask = self._registry.register if self._register else self._registry.schema_id
                schema_id = ask(f"{NAMESPACE}.{name}", self._texts[name])
                self._ids[name] = schema_id
                self._readers[schema_id] = _Reader(name, parsed, None, None)
                self._prefixes[name] = framing.prefix(schema_id)
        return self._prefixes[name]

    def _reader(self, schema_id: int) -> _Reader | None:
        if schema_id not in self._readers:
            try:
                text = self._registry.schema(schema_id)
                record = parse_record(text)
                namespace, _, name = record.name.rpartition(".")
                reader = self._reader_of(name, text, record) if namespace == NAMESPACE else None
            except UnknownSchemaError as unknown:
                reason = f"the registry has no schema {schema_id}: {unknown}"
                raise UnknownSchemaIdError(reason, schema_id) from unknown
            except SchemaError as unusable:
                raise UndecodableError(f"the schema {schema_id} cannot be used: {unusable}") from unusable
            with self._lock:
                self._readers.setdefault(schema_id, reader)
        return self._readers[schema_id]

    def _reader_of(self, name: str, text: str, record: RecordType) -> _Reader:
        try:
            written = parse_schema(json.loads(text))
        except (SchemaParseException, ValueError, KeyError, TypeError) as error:
            raise SchemaError(f"it is not valid Avro: {error}") from error
        return _Reader(name, written, self._resolved(name, written), compile_check(record))

    def _resolved(self, name: str, written: Any) -> Any | None:
        """Our version of a record's schema, to read another version as; None for the same and for unknown records."""
        if name not in self._texts:
            return None
        parsed = self._parse(name)
        return None if parsed == written else parsed
