"""From a record's data to Avro's binary form, in one pass: each value is checked, converted and written.

A plan is compiled once per schema. What it refuses it names by its path. Of the branches of a union, the first that
reads back as the same value is taken, bytes and fixed last (see `conversion` for the forms); then the first that takes
the value at all. Defaults are bytes when they are needed.
"""

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any, Final

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
from sagakit.contracts.binary import Parts, branch, long, name, put_boolean, put_bytes, put_long, put_string
from sagakit.contracts.errors import SchemaError
from sagakit.contracts.scalars import Convert, MismatchError

_END: Final = long(0)
"""Ends the blocks of an array or a map."""

_FLOAT: Final = Struct("<f")
_DOUBLE: Final = Struct("<d")


class Writer:
    """Writes the values of one type."""

    def put(self, parts: Parts, value: Any) -> None:
        """Append what `value` is on the wire.

        Raises:
            MismatchError: it does not fit the type; `parts` may then hold some of it.
        """
        raise NotImplementedError


def compile_writer(root: RecordType) -> Writer:
    """What writes the data of a record type; fields that are missing get their defaults.

    Raises:
        SchemaError: if a default does not fit its field.
    """
    return _Compiler(strict=False).record(root)


class _Compiler:
    """`strict` takes only what reading would give: the one text form, no int for a double, no field left out."""

    def __init__(self, *, strict: bool) -> None:
        self._is_strict = strict
        self._strict = self if strict else _Compiler(strict=True)
        self._records: dict[str, _Record] = {}
        self._defaults_begun: set[str] = set()

    def node(self, node: Node) -> Writer:
        match node:
            case Primitive(kind="string", logical=None):
                return _Text()
            case Primitive():
                return _Scalar(scalars.write_primitive(node, strict=self._is_strict), _raw(node))
            case Fixed():
                return _Scalar(scalars.write_fixed(node, strict=self._is_strict), _raw(node))
            case EnumType():
                return _Scalar(scalars.write_enum(node), _raw(node))
            case Array():
                return _Array(self.node(node.items))
            case Map():
                return _Map(self.node(node.values))
            case Union():
                return self._union(node)
            case RecordType():
                return self.record(node)

    def record(self, node: RecordType) -> Writer:
        known = self._records.get(node.name)
        if known is not None:
            return _Again(known.put)
        record = self._records[node.name] = _Record(node.name)
        for field in node.fields:
            default = None if self._is_strict or field.default is MISSING else self._default(node, field)
            record.fields.append((field.name, self.node(field.type), default))
        return record

    def _union(self, node: Union) -> Writer:
        null = branch(node.branches.index(NULL)) if NULL in node.branches else None
        order = sorted(enumerate(node.branches), key=lambda one: scalars.is_base64(one[1]))
        others = [(number, one) for number, one in order if one != NULL]
        if null is not None and len(others) == 1:
            ((number, other),) = others
            return _Optional(null, branch(number), self.node(other))
        compilers = (self,) if self._is_strict else (self._strict, self)
        tried = [(branch(number), compiler.node(one)) for compiler in compilers for number, one in others]
        return _Union(null, tried, " or ".join(map(branch_name, node.branches)))

    def _default(self, record: RecordType, field: Field) -> bytes:
        whose = f"{record.name}.{field.name}"
        if whose in self._defaults_begun:
            raise SchemaError(f"the default of {whose} contains itself")
        self._defaults_begun.add(whose)
        parts: Parts = []
        try:
            self._put_default(parts, field.type, field.default)
        except MismatchError as error:
            raise SchemaError(f"the default of {whose} does not fit its type: {error.reason}") from error
        finally:
            self._defaults_begun.discard(whose)
        return b"".join(parts)

    def _put_default(self, parts: Parts, node: Node, default: Any) -> None:
        """Write a default in Avro's JSON (specification, "Complex types: field default values")."""
        match node:
            case Primitive() | Fixed() | EnumType():
                return _raw(node)(parts, scalars.default_datum(node, default))
            case Array() if isinstance(default, list):
                return self._put_block(parts, [(b"", node.items, one) for one in default])
            case Map() if isinstance(default, dict):
                return self._put_block(parts, [(name(key), node.values, one) for key, one in default.items()])
            case Union():
                return self._put_default_branch(parts, node, default)
            case RecordType() if isinstance(default, dict):
                for field in node.fields:
                    if field.name in default:
                        self._put_default(parts, field.type, default[field.name])
                    elif field.default is MISSING:
                        raise MismatchError(f"{field.name} is missing")
                    else:
                        parts.append(self._default(node, field))
                return None
        raise MismatchError(f"{default!r} is no default of a {branch_name(node)}")

    def _put_block(self, parts: Parts, items: list[tuple[bytes, Node, Any]]) -> None:
        if items:
            parts.append(long(len(items)))
        for before, node, default in items:
            parts.append(before)
            self._put_default(parts, node, default)
        parts.append(_END)

    def _put_default_branch(self, parts: Parts, node: Union, default: Any) -> None:
        for number, one in enumerate(node.branches):
            written: Parts = [branch(number)]
            try:
                self._put_default(written, one, default)
            except MismatchError:
                continue
            parts += written
            return
        raise MismatchError(f"{default!r} fits no branch of the union")


# Values without parts ------------------------------------------------------------------------------------------------


def _raw(node: Primitive | Fixed | EnumType) -> Callable[[Parts, Any], None]:
    """How a type's underlying value is written."""
    match node:
        case Fixed():
            return _put_fixed
        case EnumType():
            return partial(_put_symbol, {symbol: branch(number) for number, symbol in enumerate(node.symbols)})
    return _RAW[node.kind]


def _put_nothing(_parts: Parts, _value: None) -> None:
    """Null takes no bytes."""


def _put_float(parts: Parts, value: float) -> None:
    parts.append(_FLOAT.pack(value))


def _put_double(parts: Parts, value: float) -> None:
    parts.append(_DOUBLE.pack(value))


def _put_fixed(parts: Parts, raw: bytes) -> None:
    parts.append(raw)


def _put_symbol(numbers: Mapping[str, bytes], parts: Parts, symbol: str) -> None:
    parts.append(numbers[symbol])


_RAW: Final[Mapping[str, Callable[[Parts, Any], None]]] = {
    "null": _put_nothing,
    "boolean": put_boolean,
    "int": put_long,
    "long": put_long,
    "float": _put_float,
    "double": _put_double,
    "bytes": put_bytes,
    "string": put_string,
}


class _Scalar(Writer):
    """A value without parts: `convert` checks it and gives the underlying value, `raw` writes that."""

    def __init__(self, convert: Convert, raw: Callable[[Parts, Any], None]) -> None:
        self._convert = convert
        self._raw = raw

    def put(self, parts: Parts, value: Any) -> None:
        self._raw(parts, self._convert(value))


class _Text(Writer):
    """A string; what most fields are, so it is encoded only once."""

    def put(self, parts: Parts, value: Any) -> None:
        if type(value) is not str:
            raise MismatchError(f"{scalars.shown(value)} is not text")
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise MismatchError(f"not valid Unicode text: {error.reason}") from error
        parts.append(long(len(raw)))
        parts.append(raw)


# Values with parts ---------------------------------------------------------------------------------------------------


class _Record(Writer):
    """A record: each field with its writer and, where it may be left out, the bytes of its default."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.fields: list[tuple[str, Writer, bytes | None]] = []

    def put(self, parts: Parts, value: Any) -> None:
        if type(value) is not dict and not isinstance(value, Mapping):
            raise MismatchError(f"{scalars.shown(value)} is not a record {self._name}")
        given = 0
        for field, writer, default in self.fields:
            if field in value:
                given += 1
                try:
                    writer.put(parts, value[field])
                except MismatchError as error:
                    error.path.append(field)
                    raise
            elif default is None:
                missing = MismatchError(f"missing, and {self._name} has no default for it")
                missing.path.append(field)
                raise missing
            else:
                parts.append(default)
        if given != len(value):
            known = {field for field, _, _ in self.fields}
            unknown = sorted(str(one) for one in value if one not in known)
            raise MismatchError(f"{self._name} has no field {', '.join(unknown)}")


class _Again(Writer):
    """A record that was met before, and may so contain itself: called in Python's way, which bounds how deep."""

    def __init__(self, put: Callable[[Parts, Any], None]) -> None:
        self._put = put

    def put(self, parts: Parts, value: Any) -> None:
        self._put(parts, value)


class _Array(Writer):
    def __init__(self, items: Writer) -> None:
        self._items = items

    def put(self, parts: Parts, value: Any) -> None:
        if not isinstance(value, (list, tuple)):
            raise MismatchError(f"{scalars.shown(value)} is not a list")
        if value:
            parts.append(long(len(value)))
        for number, item in enumerate(value):
            try:
                self._items.put(parts, item)
            except MismatchError as error:
                error.path.append(number)
                raise
        parts.append(_END)


class _Map(Writer):
    def __init__(self, values: Writer) -> None:
        self._values = values

    def put(self, parts: Parts, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise MismatchError(f"{scalars.shown(value)} is not a map")
        if value:
            parts.append(long(len(value)))
        for key, one in value.items():
            try:
                put_string(parts, scalars.text(key))
                self._values.put(parts, one)
            except MismatchError as error:
                error.path.append(str(key))
                raise
        parts.append(_END)


class _Optional(Writer):
    """Null or one other type; the two have their branches' numbers."""

    def __init__(self, null: bytes, some: bytes, other: Writer) -> None:
        self._absent = null
        self._present = some
        self._other = other

    def put(self, parts: Parts, value: Any) -> None:
        if value is None:
            parts.append(self._absent)
        else:
            parts.append(self._present)
            self._other.put(parts, value)


class _Union(Writer):
    """Any other union: branches in the order in which they are tried; `null` is the number of null's, if it has one."""

    def __init__(self, null: bytes | None, branches: list[tuple[bytes, Writer]], names: str) -> None:
        self._absent = null
        self._branches = branches
        self._names = names

    def put(self, parts: Parts, value: Any) -> None:
        if value is None and self._absent is not None:
            parts.append(self._absent)
            return
        begun = len(parts)
        for number, writer in self._branches:
            parts.append(number)
            try:
                writer.put(parts, value)
            except MismatchError:
                del parts[begun:]  # another branch may take it
                continue
            return
        raise MismatchError(f"{scalars.shown(value)} is neither {self._names}")
