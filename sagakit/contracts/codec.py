"""Avro messages in the Confluent wire format: decoded to values, encoded from them, with one compiled plan a schema."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader
from fastavro.schema import SchemaParseException

from sagakit.contracts import framing
from sagakit.contracts.avro_types import RecordType, parse_record
from sagakit.contracts.conversion import Conversion, compile_conversion
from sagakit.contracts.errors import SchemaError, UndecodableError, UnencodableError, UnknownSchemaIdError
from sagakit.contracts.nesting import MAX_DEPTH, compile_check
from sagakit.contracts.scalars import MismatchError
from sagakit.contracts.writing import Writer, compile_writer
from sagakit.core.values import Data
from sagakit.ports.registry import SchemaRegistry, UnknownSchemaError

AVRO_READ_ERRORS: Final = (
    EOFError,
    IndexError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
)
"""What fastavro raises for bytes that do not fit the schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A message: full name of its record, its converted data, and the id of the schema that it was written with."""

    type: str
    data: Data
    schema_id: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledSchema:
    """A schema with all that reading and writing it takes, and the id that it is registered under."""

    name: str
    text: str
    schema_id: int
    record: RecordType
    prefix: bytes
    parsed: Any
    conversion: Conversion
    writer: Writer
    check: Callable[[bytes, int], None] | None


class AvroCodec:
    """Decodes and encodes business records. Not for sagakit's own records, which need no conversion (`own`).

    One instance may be shared by threads: its caches only grow, and compiling a schema twice does no harm.
    """

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry
        self._by_id: dict[int, CompiledSchema] = {}
        self._by_text: dict[tuple[str | None, str], CompiledSchema] = {}

    def schema(self, schema_id: int) -> CompiledSchema:
        """The compiled schema of an id.

        Raises:
            UndecodableError: the registry denies the id, or the schema is not of an Avro record.
            RegistryUnavailableError: the registry does not answer.
        """
        known = self._by_id.get(schema_id)
        if known is None:
            try:
                known = _compiled(self._registry.schema(schema_id), schema_id)
            except UnknownSchemaError as unknown:
                reason = f"the registry has no schema {schema_id}: {unknown}"
                raise UnknownSchemaIdError(reason, schema_id) from unknown
            except SchemaError as unusable:
                raise UndecodableError(f"the schema {schema_id} cannot be used: {unusable}") from unusable
            self._by_id[schema_id] = known
        return known

    def compile_schema(self, text: str, subject: str | None = None) -> CompiledSchema:
        """The compiled form of a self-contained schema, for encoding. `subject` defaults to the record's full name.

        Raises:
            SchemaError: `text` is not an Avro record's schema.
            UnknownSchemaError: the schema is not registered at the subject; `sagakit schemas register` does it.
            RegistryUnavailableError: the registry does not answer.
        """
        key = (subject, text)
        known = self._by_text.get(key)
        if known is None:
            name = subject or parse_record(text).name
            known = self._by_text[key] = _compiled(text, self._registry.schema_id(name, text))
            self._by_id.setdefault(known.schema_id, known)
        return known

    def decode(self, value: bytes) -> Decoded:
        """The record that a framed value holds.

        Raises:
            UndecodableError: the bytes can never be read; it says why.
            RegistryUnavailableError: the schema is not known yet and the registry does not answer.
        """
        try:
            schema_id = framing.schema_id_of(value)
        except framing.FramingError as error:
            raise UndecodableError(str(error)) from error
        schema = self._by_id.get(schema_id) or self.schema(schema_id)
        raw = read(schema, value)
        return Decoded(
            type=schema.name, data=raw if schema.conversion.read is None else _convert(schema, raw), schema_id=schema_id
        )

    def encode(self, schema: CompiledSchema, data: Data) -> bytes:
        """The framed value of a record's data; defaults fill the fields that are missing.

        Raises:
            UnencodableError: the data does not fit the schema; it names the field.
        """
        parts = [schema.prefix]
        try:
            schema.writer.put(parts, data)
        except MismatchError as mismatch:
            raise UnencodableError(schema.name, mismatch.path[::-1], mismatch.reason) from mismatch
        except RecursionError as too_deep:
            raise UnencodableError(schema.name, (), f"records nested more than {MAX_DEPTH} deep") from too_deep
        value = b"".join(parts)
        if schema.check is not None:
            _check_written(schema, value)
        return value


def read(schema: CompiledSchema, value: bytes) -> dict[str, Any]:
    """The unconverted fields of a framed value that was written with `schema`.

    Raises:
        UndecodableError: the bytes do not fit the schema.
    """
    if schema.check is not None:
        schema.check(value, framing.PREFIX_BYTES)
    source = BytesIO(value)
    source.seek(framing.PREFIX_BYTES)
    try:
        raw: dict[str, Any] = schemaless_reader(source, schema.parsed, None)  # type: ignore[assignment]
    except AVRO_READ_ERRORS as error:
        raise UndecodableError(
            f"the bytes do not fit the schema of {schema.name}: {type(error).__name__}: {error}"
        ) from error
    if source.tell() != len(value):
        left = len(value) - source.tell()
        raise UndecodableError(f"{left} bytes are left over after a {schema.name}")
    return raw


def _convert(schema: CompiledSchema, raw: dict[str, Any]) -> Mapping[str, Any]:
    assert schema.conversion.read is not None
    try:
        return schema.conversion.read(raw)
    except ValueError as error:  # a decimal of thousands of digits, which Python refuses to print
        raise UndecodableError(f"a {schema.name} holds a value that cannot be shown: {error}") from error


def _check_written(schema: CompiledSchema, value: bytes) -> None:
    """Never write what we would refuse to read."""
    assert schema.check is not None
    try:
        schema.check(value, framing.PREFIX_BYTES)
    except UndecodableError as error:
        raise UnencodableError(schema.name, (), error.reason) from error


def _compiled(text: str, schema_id: int) -> CompiledSchema:
    record = parse_record(text)
    try:
        conversion = compile_conversion(record)
        writer = compile_writer(record)
        parsed = parse_schema(conversion.wire)
    except (SchemaParseException, ValueError, KeyError, TypeError) as error:
        raise SchemaError(f"the schema of {record.name} is not valid Avro: {error}") from error
    return CompiledSchema(
        name=record.name,
        text=text,
        schema_id=schema_id,
        record=record,
        prefix=framing.prefix(schema_id),
        parsed=parsed,
        conversion=conversion,
        writer=writer,
        check=compile_check(record),
    )
