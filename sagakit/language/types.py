"""Avro records as types of the CEL checker: total over Avro, recursive records included.

Data is converted once on arrival, so a value of each Avro type has one JSON form: decimal, uuid, dates, times,
durations, bytes and fixed are texts, unions are unwrapped. The checker is told of that form by protobuf messages, one
for each record:

| Avro | protobuf | CEL |
| --- | --- | --- |
| boolean; int, long; float, double | bool; int64; double | bool; int; double |
| string, bytes, fixed, enum, and every logical type | string | string |
| union of null and one of these | the wrapper message | the same, or null |
| record, or null and record | message | message |
| array, map of these | repeated, map | list, map |
| null and array or map; null; any other union; an array of arrays, and so on | google.protobuf.Value | dyn |

What is `dyn` here is not lost: the linter follows the Avro types themselves along paths, and knows null for null.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from google.protobuf import descriptor_pb2, struct_pb2, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool

from sagakit.contracts.avro_types import (
    NULL,
    Array,
    EnumType,
    Fixed,
    Map,
    Node,
    Primitive,
    RecordType,
    Union,
    parse_record,
)

_Field = descriptor_pb2.FieldDescriptorProto

_SCALARS: Final = {
    "boolean": (_Field.TYPE_BOOL, "BoolValue"),
    "int": (_Field.TYPE_INT64, "Int64Value"),
    "long": (_Field.TYPE_INT64, "Int64Value"),
    "float": (_Field.TYPE_DOUBLE, "DoubleValue"),
    "double": (_Field.TYPE_DOUBLE, "DoubleValue"),
    "string": (_Field.TYPE_STRING, "StringValue"),
    "bytes": (_Field.TYPE_STRING, "StringValue"),
}
_TEXT: Final = _SCALARS["string"]
_DYN: Final = ".google.protobuf.Value"
_FILE: Final = "sagakit_types.proto"
_PREFIX: Final = "sagakit_type_"


class Schemas:
    """Avro records by full name, read from self-contained schema texts; each is read when it is first asked for."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self._records: dict[str, RecordType] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.texts

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def record(self, name: str) -> RecordType:
        """The record of a full name.

        Raises:
            KeyError: there is none.
            SchemaError: its schema cannot be read.
        """
        if name not in self._records:
            self._records[name] = parse_record(self.texts[name])
        return self._records[name]


def field_type(record: RecordType, name: str) -> Node | None:
    """The type of a record's field; None if it has no such field."""
    return next((field.type for field in record.fields if field.name == name), None)


def is_nullable(node: Node) -> bool:
    """Whether null is a value of the type."""
    return node == NULL or (isinstance(node, Union) and NULL in node.branches)


def without_null(node: Node) -> Node:
    """The type of a value that is known not to be null."""
    if not isinstance(node, Union):
        return node
    rest = tuple(branch for branch in node.branches if branch != NULL)
    return rest[0] if len(rest) == 1 else Union(branches=rest) if rest else NULL


def shown(node: Node) -> str:
    """A type as a message to people names it."""
    match node:
        case Primitive(logical="decimal") | Fixed(logical="decimal"):
            return f"decimal({node.precision}, {node.scale})"
        case Primitive():
            return node.logical or node.kind
        case Fixed():
            return node.logical or f"fixed {node.name}"
        case EnumType():
            return f"enum {node.name}"
        case Array():
            return f"array of {shown(node.items)}"
        case Map():
            return f"map of {shown(node.values)}"
        case Union():
            rest = without_null(node)
            branches = rest.branches if isinstance(rest, Union) else (rest,)
            text = " or ".join(shown(branch) for branch in branches)
            return f"{text} or null" if is_nullable(node) else text
        case RecordType():
            return node.name


class MessageTypes:
    """Protobuf messages for Avro records, in a descriptor pool that the CEL checker reads.

    Every schema text stands alone, so two of them may define one full name differently: records are told apart by
    identity, and messages have made-up names, which `readable` turns back.
    """

    def __init__(self, roots: Iterable[tuple[RecordType, bool]]) -> None:
        self._file = descriptor_pb2.FileDescriptorProto(
            name=_FILE,
            # In proto3 the fields `placedAt` and `placed_at` cannot stand in one message.
            syntax="proto2",
            dependency=[wrappers_pb2.DESCRIPTOR.name, struct_pb2.DESCRIPTOR.name],
        )
        self._names: dict[tuple[RecordType, bool], str] = {}
        self._records: dict[str, RecordType] = {}
        for record, absent in roots:
            self._message(record, absent=absent)
        self.pool = DescriptorPool()
        for known in (wrappers_pb2.DESCRIPTOR, struct_pb2.DESCRIPTOR):
            self.pool.AddSerializedFile(known.serialized_pb)
        self.pool.AddSerializedFile(self._file.SerializeToString())

    def name(self, record: RecordType, *, absent: bool) -> str:
        """The message of a root record. With `absent`, it may not be there: each of its fields may be null."""
        return self._names[record, absent]

    def record(self, message: str) -> RecordType | None:
        """The record that a message stands for."""
        return self._records.get(message)

    def readable(self, message: str) -> str:
        """A message of the checker with records called by their Avro names."""
        for made_up in sorted(self._records, key=len, reverse=True):
            message = message.replace(made_up, self._records[made_up].name)
        return message

    def _message(self, record: RecordType, *, absent: bool) -> str:
        key = (record, absent)
        if key in self._names:
            return self._names[key]
        name = self._names[key] = f"{_PREFIX}{len(self._names)}"
        self._records[name] = record
        message = self._file.message_type.add(name=name)
        for number, field in enumerate(record.fields, start=1):
            self._field(message, field.name, number, field.type, nullable=absent)
        return name

    def _field(
        self, message: descriptor_pb2.DescriptorProto, name: str, number: int, node: Node, *, nullable: bool
    ) -> None:
        inner, nullable = without_null(node), nullable or is_nullable(node)
        if isinstance(inner, Array) and not nullable:
            self._add(message, name, number, self._element(inner.items), repeated=True)
        elif isinstance(inner, Map) and not nullable and not _taken(message, _entry_name(name)):
            entry = message.nested_type.add(name=_entry_name(name))
            entry.options.map_entry = True
            self._add(entry, "key", 1, (_Field.TYPE_STRING, ""))
            self._add(entry, "value", 2, self._element(inner.values))
            kind = (_Field.TYPE_MESSAGE, f".{message.name}.{entry.name}")
            self._add(message, name, number, kind, repeated=True)
        elif nullable:
            self._add(message, name, number, self._nullable(inner))
        else:
            self._add(message, name, number, self._element(node))

    def _element(self, node: Node) -> tuple[_Field.Type.ValueType, str]:
        """The type of a field, an item or a value that is one protobuf value."""
        if is_nullable(node):
            return self._nullable(without_null(node))
        scalar = _scalar(node)
        return (scalar[0], "") if scalar is not None else self._nullable(node)

    def _nullable(self, node: Node) -> tuple[_Field.Type.ValueType, str]:
        if isinstance(node, RecordType):
            return _Field.TYPE_MESSAGE, f".{self._message(node, absent=False)}"
        scalar = _scalar(node)
        return _Field.TYPE_MESSAGE, f".google.protobuf.{scalar[1]}" if scalar is not None else _DYN

    @staticmethod
    def _add(
        message: descriptor_pb2.DescriptorProto,
        name: str,
        number: int,
        kind: tuple[_Field.Type.ValueType, str],
        *,
        repeated: bool = False,
    ) -> None:
        label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
        field = message.field.add(name=name, number=number, label=label, type=kind[0])
        if kind[1]:  # an empty name would count as one
            field.type_name = kind[1]


def _entry_name(field: str) -> str:
    """The name that protobuf demands of a map field's entry message."""
    return "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"


def _taken(message: descriptor_pb2.DescriptorProto, name: str) -> bool:
    """Whether an entry of this name stands there already (of `rateCard`, now comes `rate_card`: that one is dyn)."""
    return any(nested.name == name for nested in message.nested_type)


def _scalar(node: Node) -> tuple[_Field.Type.ValueType, str] | None:
    match node:
        case Fixed() | EnumType():
            return _TEXT
        case Primitive(logical=None):
            return _SCALARS.get(node.kind)
        case Primitive():
            return _TEXT
        case _:
            return None
