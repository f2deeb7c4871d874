"""Whether a schema may follow those that a subject has, by Apache Avro's checker, and which fields break a rule."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType, lookup_writer_field
from avro.errors import AvroException

from sagakit.contracts.errors import SchemaError, path_text

LEVELS: Final = ("NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE")
"""The compatibility levels of the Confluent API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incompatibility:
    """One rule that a schema breaks.

    Attributes:
        field: path to the field (`address.street`); empty for the record itself.
        rule: Avro's name of the rule, such as `reader_field_missing_default_value`.
        message: what is wrong, and what to do.
        version: the version of the subject, from 1, that it is incompatible with.
        direction: `backward` when the new schema cannot read old data, `forward` when old readers cannot read new data.
    """

    field: str
    rule: str
    message: str
    version: int
    direction: str


def incompatibilities(schema: str, existing: Sequence[str], level: str) -> tuple[Incompatibility, ...]:
    """Every rule of `level` that `schema` breaks against `existing`, a subject's schemas, oldest first.

    Raises:
        SchemaError: a text is not an Avro schema, or the level is unknown.
    """
    if level not in LEVELS:
        raise SchemaError(f"the compatibility level {level!r} is unknown; choose one of {', '.join(LEVELS)}")
    if level == "NONE" or not existing:
        return ()
    new = _parse(schema)
    first = 1 if level.endswith("TRANSITIVE") else len(existing)
    broken: list[Incompatibility] = []
    for version in range(first, len(existing) + 1):
        old = _parse(existing[version - 1])
        if level.startswith(("BACKWARD", "FULL")):
            broken += _compared(new, old, version, "backward")
        if level.startswith(("FORWARD", "FULL")):
            broken += _compared(old, new, version, "forward")
    return tuple(broken)


def _parse(text: str) -> Any:
    try:
        return avro.schema.parse(text)
    except AvroException as error:
        raise SchemaError(f"not an Avro schema: {error}") from error


def _compared(reader: Any, writer: Any, version: int, direction: str) -> Iterable[Incompatibility]:
    for path, rule, message in _explained(reader, writer, (), set()):
        yield Incompatibility(
            field=path_text(path),
            rule=rule,
            message=f"{message}; {_remedy(rule, direction)}",
            version=version,
            direction=direction,
        )


def _remedy(rule: str, direction: str) -> str:
    if rule == "reader_field_missing_default_value":
        return (
            "give the field a default"
            if direction == "backward"
            else "keep the field, or give it a default before it goes"
        )
    if rule == "missing_enum_symbols":
        return "give the enum a default symbol before its symbols change"
    return "keep the type as it was and add a new field, with a default, beside it"


def _explained(
    reader: Any, writer: Any, path: tuple[str | int, ...], seen: set[tuple[int, int]]
) -> Iterable[tuple[Any, str, str]]:
    """(path, rule, message) of each innermost pair of types of which Avro's checker says that they do not fit."""
    checker: Any = ReaderWriterCompatibilityChecker  # untyped in the library
    result = checker().get_compatibility(reader, writer)
    if result.compatibility is not SchemaCompatibilityType.incompatible or (id(reader), id(writer)) in seen:
        return
    seen.add((id(reader), id(writer)))
    if reader.type == writer.type == "record" and reader.name == writer.name:
        yield from _explained_fields(reader, writer, path, seen)
    elif reader.type == writer.type == "array":
        yield from _explained(reader.items, writer.items, (*path, "items"), seen)
    elif reader.type == writer.type == "map":
        yield from _explained(reader.values, writer.values, (*path, "values"), seen)
    elif (inner := _inner(reader, writer)) is not None:
        yield from _explained(*inner, path, seen)
    else:
        rule = result.incompatibilities[0].value
        yield path, rule, "; ".join(sorted(result.messages))


def _explained_fields(
    reader: Any, writer: Any, path: tuple[str | int, ...], seen: set[tuple[int, int]]
) -> Iterable[tuple[Any, str, str]]:
    for field in reader.fields:
        written = lookup_writer_field(writer_schema=writer, reader_field=field)
        if written is not None:
            yield from _explained(field.type, written.type, (*path, field.name), seen)
        elif not field.has_default:
            yield (
                (*path, field.name),
                "reader_field_missing_default_value",
                "readers need the field, writers do not write it",
            )


def _inner(reader: Any, writer: Any) -> tuple[Any, Any] | None:
    """The types beside null, where both are unions of null and one more."""
    if reader.type != "union" or writer.type != "union":
        return None
    others = [[branch for branch in union.schemas if branch.type != "null"] for union in (reader, writer)]
    nullable = all(
        len(union.schemas) == 2 and len(one) == 1 for union, one in zip((reader, writer), others, strict=True)
    )
    return (others[0][0], others[1][0]) if nullable else None
