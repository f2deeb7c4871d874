"""Avro data to the values that expressions see: compiled once per schema into plain functions. The way back: `writing`.

fastavro is given a schema without logical types, so what it reads is the underlying number, text or bytes, and nothing
is lost on the way (its own logical types end at the year 9999 and at microseconds). Each branch of a union, other than
of null and one more, is wrapped into a record of one field named after the branch's position: Avro writes nothing for
the wrapping, and the branch is known for certain.

The forms: decimal and uuid as text; bytes and fixed in base64; date, times and timestamps as `logical` writes them;
enums as text; unions unwrapped; doubles that are no number as `NaN`, `Infinity`, `-Infinity`. Where two branches of one
union share a form (string and bytes), the first that reads back as the same value gets it, bytes and fixed last.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from sagakit.contracts import scalars
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
)
from sagakit.contracts.scalars import Convert

_Plan: TypeAlias = list[tuple[str, Convert]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How one record type crosses the wire.

    Attributes:
        wire: the schema for fastavro.
        read: from what fastavro reads to the record's data, in place; None where there is nothing to convert.
    """

    wire: dict[str, Any]
    read: Callable[[dict[str, Any]], dict[str, Any]] | None


def compile_conversion(root: RecordType) -> Conversion:
    """The conversion of a record type."""
    wrappers = _Wrappers()
    wire = _Wire(wrappers).record(root)
    return Conversion(wire=wire, read=_Reader().record(root))


class _Wrappers:
    """The names of the records that wrap the branches of general unions; equal unions share them."""

    def __init__(self) -> None:
        self._unions: dict[Union, int] = {}

    def is_new(self, union: Union) -> bool:
        known = union in self._unions
        self._unions.setdefault(union, len(self._unions))
        return not known

    def name(self, union: Union, number: int) -> str:
        return f"sagakit_union{self._unions[union]}.{_branch_field(number)}"


def _branch_field(number: int) -> str:
    return f"branch{number}"


# The schema that fastavro works with ---------------------------------------------------------------------------------


class _Wire:
    def __init__(self, wrappers: _Wrappers) -> None:
        self._defined: set[str] = set()
        self._wrappers = wrappers

    def record(self, node: RecordType) -> dict[str, Any]:
        self._defined.add(node.name)
        fields = [{"name": field.name, "type": self.node(field.type)} for field in node.fields]
        return {"type": "record", "name": node.name, "fields": fields}

    def node(self, node: Node) -> Any:
        match node:
            case Primitive():
                return node.kind
            case Array():
                return {"type": "array", "items": self.node(node.items)}
            case Map():
                return {"type": "map", "values": self.node(node.values)}
            case Union():
                if node.optional is not None:
                    return [self.node(branch) for branch in node.branches]
                return self._wrapped(node)
        if node.name in self._defined:
            return node.name
        if isinstance(node, RecordType):
            return self.record(node)
        self._defined.add(node.name)
        if isinstance(node, EnumType):
            return {"type": "enum", "name": node.name, "symbols": list(node.symbols)}
        return {"type": "fixed", "name": node.name, "size": node.size}

    def _wrapped(self, union: Union) -> list[Any]:
        new = self._wrappers.is_new(union)
        wrapped: list[Any] = []
        for number, branch in enumerate(union.branches):
            name = self._wrappers.name(union, number)
            if branch == NULL:
                wrapped.append("null")
            elif new:
                field = {"name": _branch_field(number), "type": self.node(branch)}
                wrapped.append({"type": "record", "name": name, "fields": [field]})
            else:
                wrapped.append(name)
        return wrapped


# Reading -------------------------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self) -> None:
        self._records: dict[str, Convert | None] = {}

    def node(self, node: Node) -> Convert | None:
        match node:
            case Primitive():
                return scalars.read_primitive(node)
            case Fixed():
                return scalars.read_fixed(node)
            case EnumType():
                return None
            case Array():
                items = self.node(node.items)
                return None if items is None else partial(_read_array, items)
            case Map():
                values = self.node(node.values)
                return None if values is None else partial(_read_map, values)
            case Union():
                return self._union(node)
            case RecordType():
                return self.record(node)

    def record(self, node: RecordType) -> Convert | None:
        if node.name in self._records:
            return self._records[node.name]
        plan: _Plan = []
        if node.recursive:
            self._records[node.name] = partial(_read_record, plan)
        for field in node.fields:
            convert = self.node(field.type)
            if convert is not None:
                plan.append((field.name, convert))
        return self._records.setdefault(node.name, partial(_read_record, plan) if plan else None)

    def _union(self, node: Union) -> Convert | None:
        if node.optional is not None:
            other = self.node(node.optional)
            return None if other is None else partial(_read_optional, other)
        return partial(
            _read_union, {_branch_field(number): self.node(branch) for number, branch in enumerate(node.branches)}
        )


def _read_record(plan: _Plan, raw: dict[str, Any]) -> dict[str, Any]:
    for name, convert in plan:
        raw[name] = convert(raw[name])
    return raw


def _read_array(items: Convert, raw: list[Any]) -> list[Any]:
    return [items(item) for item in raw]


def _read_map(values: Convert, raw: dict[str, Any]) -> dict[str, Any]:
    return {key: values(value) for key, value in raw.items()}


def _read_optional(other: Convert, raw: Any) -> Any:
    return None if raw is None else other(raw)


def _read_union(branches: Mapping[str, Convert | None], raw: dict[str, Any] | None) -> Any:
    if raw is None:
        return None
    ((name, value),) = raw.items()
    convert = branches[name]
    return value if convert is None else convert(value)
