"""An Avro schema as a tree of typed nodes: what conversion, masking and generated models are derived from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from sagakit.contracts.errors import SchemaError

Json: TypeAlias = Any
"""A schema as JSON, as it was read."""

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
MASK: Final = "sagakit.mask"
"""The Avro field property that says: never print this field."""


class _Missing:
    """The default of a field that has none; None is a default."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Primitive:
    """A type without a name. `logical` is the logical type that applies to it; precision and scale are a decimal's."""

    kind: str
    logical: str | None = None
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """`size` bytes under a name; logical types as for `Primitive`."""

    name: str
    size: int
    logical: str | None = None
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnumType:
    """One of the `symbols`."""

    name: str
    symbols: tuple[str, ...]
    doc: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """A list of `items`."""

    items: "Node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """`values` by string."""

    values: "Node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Union:
    """One of the `branches`."""

    branches: tuple["Node", ...]

    @property
    def optional(self) -> "Node | None":
        """The other branch of a union of null and one more; None for every other union."""
        others = tuple(branch for branch in self.branches if branch != NULL)
        return others[0] if len(others) == 1 and len(self.branches) == 2 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a record. `default` is Avro JSON, `MISSING` where there is none."""

    name: str
    type: "Node"
    default: Any = MISSING
    doc: str | None = None
    masked: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class RecordType:
    """A record; compared by identity, since it may contain itself."""

    name: str
    doc: str | None = None
    fields: tuple[Field, ...] = field(default=(), repr=False)
    recursive: bool = False


Node: TypeAlias = Primitive | Fixed | EnumType | Array | Map | Union | RecordType

NULL: Final = Primitive(kind="null")

_LOGICAL: Final[Mapping[str, str]] = {
    "date": "int",
    "time-millis": "int",
    "time-micros": "long",
    "timestamp-millis": "long",
    "timestamp-micros": "long",
    "timestamp-nanos": "long",
    "local-timestamp-millis": "long",
    "local-timestamp-micros": "long",
    "local-timestamp-nanos": "long",
    "uuid": "string",
}


def parse(text: str) -> Node:
    """The tree of a self-contained Avro schema.

    A logical type that is unknown or does not fit its underlying type is ignored, as the Avro specification demands.

    Raises:
        SchemaError: if the text is not an Avro schema or uses a type that it does not define.
    """
    try:
        return _Parser().node(json.loads(text), None)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SchemaError(f"not an Avro schema: {error!r}") from error
    except RecursionError as too_deep:
        raise SchemaError("not a usable Avro schema: its types are nested too deeply") from too_deep


def parse_record(text: str) -> RecordType:
    """The tree of a self-contained schema of a record.

    Raises:
        SchemaError: as `parse`, and if the schema is not a record.
    """
    node = parse(text)
    if not isinstance(node, RecordType):
        raise SchemaError("messages are records, and this schema is none")
    return node


class _Parser:
    def __init__(self) -> None:
        self._named: dict[str, RecordType | EnumType | Fixed] = {}
        self._open: set[str] = set()

    def node(self, schema: Json, namespace: str | None) -> Node:
        if isinstance(schema, str):
            return self._by_name(schema, namespace)
        if isinstance(schema, list):
            return self._union(schema, namespace)
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._record(schema, namespace)
        if kind == "enum":
            name = self._name(schema, namespace)
            symbols = schema["symbols"]
            texts = isinstance(symbols, list) and all(isinstance(symbol, str) for symbol in symbols)
            if not texts or not symbols or len(set(symbols)) != len(symbols):
                raise SchemaError(f"the enum {name} needs a list of symbols, each a text of its own")
            return self._define(name, EnumType(name=name, symbols=tuple(symbols), doc=schema.get("doc")))
        if kind == "fixed":
            return self._fixed(schema, namespace)
        if kind == "array":
            return Array(items=self.node(schema["items"], namespace))
        if kind == "map":
            return Map(values=self.node(schema["values"], namespace))
        if isinstance(kind, str) and kind in PRIMITIVES:
            return _primitive(kind, schema)
        return self.node(kind, namespace)

    def _by_name(self, schema: str, namespace: str | None) -> Node:
        if schema in PRIMITIVES:
            return Primitive(kind=schema)
        name = full_name(schema, namespace)
        known = self._named.get(name)
        if known is None:
            raise SchemaError(f"the type {name!r} is used but not defined in the schema")
        if name in self._open and isinstance(known, RecordType):
            known.recursive = True
        return known

    def _union(self, schema: list[Json], namespace: str | None) -> Node:
        branches = tuple(self.node(branch, namespace) for branch in schema)
        kinds = [branch_name(branch) for branch in branches]
        if not branches or "union" in kinds or len(set(kinds)) != len(kinds):
            raise SchemaError(f"a union needs branches of different types, none of them a union, not {kinds}")
        return Union(branches=branches)

    def _name(self, schema: Json, namespace: str | None) -> str:
        return full_name(_text(schema["name"]), schema.get("namespace", namespace))

    def _define(self, name: str, node: EnumType | Fixed | RecordType) -> Node:
        if name in self._named:
            raise SchemaError(f"the type {name} is defined twice in the schema")
        self._named[name] = node
        return node

    def _record(self, schema: Json, namespace: str | None) -> Node:
        name = self._name(schema, namespace)
        record = RecordType(name=name, doc=schema.get("doc"))
        self._define(name, record)
        self._open.add(name)
        record.fields = tuple(
            Field(
                name=_text(one["name"]),
                type=self.node(one["type"], name.rpartition(".")[0]),
                default=one.get("default", MISSING),
                doc=one.get("doc"),
                masked=one.get(MASK) is True,
            )
            for one in schema["fields"]
        )
        if len({one.name for one in record.fields}) != len(record.fields):
            raise SchemaError(f"the record {name} has two fields of one name")
        self._open.discard(name)
        return record

    def _fixed(self, schema: Json, namespace: str | None) -> Node:
        name, size = self._name(schema, namespace), schema["size"]
        if not isinstance(size, int) or size < 0:
            raise SchemaError(f"the size of the fixed {name} must be a number of bytes, not {size!r}")
        logical = schema.get("logicalType")
        if logical == "decimal" and (parts := _decimal(schema)) is not None:
            return self._define(
                name, Fixed(name=name, size=size, logical="decimal", precision=parts[0], scale=parts[1])
            )
        if (logical == "duration" and size == 12) or (logical == "uuid" and size == 16):
            return self._define(name, Fixed(name=name, size=size, logical=logical))
        return self._define(name, Fixed(name=name, size=size))


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise SchemaError(f"a name must be text, not {name!r}")
    return name


def _primitive(kind: str, schema: Json) -> Primitive:
    logical = schema.get("logicalType")
    if logical == "decimal" and kind == "bytes" and (parts := _decimal(schema)) is not None:
        return Primitive(kind=kind, logical="decimal", precision=parts[0], scale=parts[1])
    if isinstance(logical, str) and _LOGICAL.get(logical) == kind:
        return Primitive(kind=kind, logical=logical)
    return Primitive(kind=kind)


def _decimal(schema: Json) -> tuple[int, int] | None:
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if type(precision) is int and type(scale) is int and 0 <= scale <= precision and precision > 0:
        return precision, scale
    return None


def full_name(name: str, namespace: str | None) -> str:
    """A name with its namespace; one that has dots stands as it is (Avro specification, "Names")."""
    return name if "." in name or not namespace else f"{namespace}.{name}"


def branch_name(node: Node) -> str:
    """What tells a type from the others of a union: the full name of a named type, else the kind."""
    match node:
        case Primitive():
            return node.kind
        case Array():
            return "array"
        case Map():
            return "map"
        case Union():
            return "union"
        case _:
            return node.name
