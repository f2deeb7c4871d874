"""Avro data to the values that expressions see, and back: compiled once per schema into plain functions.

fastavro is given a schema without logical types, so what it reads and writes is the underlying number, text or bytes,
and nothing is lost on the way (its own logical types end at the year 9999 and at microseconds). Each branch of a union,
other than of null and one more, is wrapped into a record of one field named after the branch's position: Avro writes
nothing for the wrapping, and the branch is known for certain on both sides.

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
    MISSING,
    NULL,
    Array,
    EnumType,
    Field,
    Fixed,
    Map,
    Node,
    Primitive,
    RecordType,
    Union,
    branch_name,
)
from sagakit.contracts.errors import SchemaError
from sagakit.contracts.scalars import Convert, MismatchError

_Plan: TypeAlias = list[tuple[str, Convert]]
_WritePlan: TypeAlias = list[tuple[str, Convert, Any]]
_Branch: TypeAlias = tuple[str, str, Convert]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How one record type crosses the wire.

    Attributes:
        wire: the schema for fastavro.
        read: from what fastavro reads to the record's data, in place; None where there is nothing to convert.
        write: from the record's data to what fastavro writes, every field checked; raises `MismatchError`.
    """

    wire: dict[str, Any]
    read: Callable[[dict[str, Any]], dict[str, Any]] | None
    write: Callable[[Mapping[str, Any]], dict[str, Any]]


def compile_conversion(root: RecordType) -> Conversion:
    """The conversion of a record type.

    Raises:
        SchemaError: if a default does not fit its field.
    """
    wrappers = _Wrappers()
    wire = _Wire(wrappers).record(root)
    return Conversion(wire=wire, read=_Reader().record(root), write=_Writer(wrappers, strict=False).record(root))


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


# Writing -------------------------------------------------------------------------------------------------------------


class _Writer:
    """`strict` takes only what reading would give: the one text form, no int for a double, no field left out."""

    def __init__(self, wrappers: _Wrappers, *, strict: bool) -> None:
        self._wrappers = wrappers
        self._is_strict = strict
        self._strict = self if strict else _Writer(wrappers, strict=True)
        self._records: dict[str, Convert] = {}
        self._defaults_begun: set[str] = set()

    def node(self, node: Node) -> Convert:
        match node:
            case Primitive():
                return scalars.write_primitive(node, strict=self._is_strict)
            case Fixed():
                return scalars.write_fixed(node, strict=self._is_strict)
            case EnumType():
                return scalars.write_enum(node)
            case Array():
                return partial(_write_array, self.node(node.items))
            case Map():
                return partial(_write_map, self.node(node.values))
            case Union():
                return self._union(node)
            case RecordType():
                return self.record(node)

    def record(self, node: RecordType) -> Convert:
        known = self._records.get(node.name)
        if known is not None:
            return known
        plan: _WritePlan = []
        convert = self._records[node.name] = partial(_write_record, node.name, plan)
        for field in node.fields:
            default = MISSING if self._is_strict else self._default(node, field)
            plan.append((field.name, self.node(field.type), default))
        return convert

    def _union(self, node: Union) -> Convert:
        if node.optional is not None:
            other = self.node(node.optional)
            if isinstance(node.optional, Primitive):
                return partial(_write_optional, other)
            return partial(_write_tagged_optional, branch_name(node.optional), other)
        order = sorted(enumerate(node.branches), key=lambda one: scalars.is_base64(one[1]))
        tried: list[_Branch] = []
        for conversion in (self._strict,) if self._is_strict else (self._strict, self):
            tried += [
                (self._wrappers.name(node, number), _branch_field(number), conversion.node(branch))
                for number, branch in order
                if branch != NULL
            ]
        return partial(_write_union, tried, NULL in node.branches, " or ".join(map(branch_name, node.branches)))

    def _default(self, record: RecordType, field: Field) -> Any:
        if field.default is MISSING:
            return MISSING
        name = f"{record.name}.{field.name}"
        if name in self._defaults_begun:
            raise SchemaError(f"the default of {name} contains itself")
        self._defaults_begun.add(name)
        try:
            return self._default_datum(field.type, field.default)
        except MismatchError as error:
            raise SchemaError(f"the default of {name} does not fit its type: {error.reason}") from error
        finally:
            self._defaults_begun.discard(name)

    def _default_datum(self, node: Node, default: Any) -> Any:
        """What fastavro writes for a default in Avro's JSON (specification, "Complex types: field default values")."""
        match node:
            case Primitive() | Fixed() | EnumType():
                return scalars.default_datum(node, default)
            case Array() if isinstance(default, list):
                return [self._default_datum(node.items, item) for item in default]
            case Map() if isinstance(default, dict):
                return {key: self._default_datum(node.values, value) for key, value in default.items()}
            case Union():
                return self._default_branch(node, default)
            case RecordType() if isinstance(default, dict):
                return {
                    field.name: self._default_datum(field.type, default[field.name])
                    if field.name in default
                    else self._default(node, field)
                    for field in node.fields
                }
        raise MismatchError(f"{default!r} is no default of a {branch_name(node)}")

    def _default_branch(self, node: Union, default: Any) -> Any:
        for number, branch in enumerate(node.branches):
            try:
                datum = self._default_datum(branch, default)
            except MismatchError:
                continue
            if branch == NULL:
                return None
            if node.optional is not None:
                return (branch_name(branch), datum)
            return (self._wrappers.name(node, number), {_branch_field(number): datum})
        raise MismatchError(f"{default!r} fits no branch of the union")


def _write_record(record: str, plan: _WritePlan, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise MismatchError(f"{scalars.shown(value)} is not a record {record}")
    datum: dict[str, Any] = {}
    given = 0
    for name, convert, default in plan:
        if name in value:
            given += 1
            try:
                datum[name] = convert(value[name])
            except MismatchError as error:
                error.path.append(name)
                raise
        elif default is MISSING:
            missing = MismatchError(f"missing, and {record} has no default for it")
            missing.path.append(name)
            raise missing
        else:
            datum[name] = default
    if given != len(value):
        unknown = sorted(str(name) for name in value if name not in datum)
        raise MismatchError(f"{record} has no field {', '.join(unknown)}")
    return datum


def _write_array(items: Convert, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise MismatchError(f"{scalars.shown(value)} is not a list")
    datum: list[Any] = []
    for number, item in enumerate(value):
        try:
            datum.append(items(item))
        except MismatchError as error:
            error.path.append(number)
            raise
    return datum


def _write_map(values: Convert, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise MismatchError(f"{scalars.shown(value)} is not a map")
    datum: dict[str, Any] = {}
    for key, one in value.items():
        try:
            datum[scalars.text(key)] = values(one)
        except MismatchError as error:
            error.path.append(str(key))
            raise
    return datum


def _write_optional(other: Convert, value: Any) -> Any:
    return None if value is None else other(value)


def _write_tagged_optional(branch: str, other: Convert, value: Any) -> Any:
    return None if value is None else (branch, other(value))


def _write_union(branches: list[_Branch], nullable: bool, names: str, value: Any) -> Any:
    if value is None and nullable:
        return None
    for name, field, convert in branches:
        try:
            return (name, {field: convert(value)})
        except MismatchError:
            continue  # another branch may take it
    raise MismatchError(f"{scalars.shown(value)} is neither {names}")
