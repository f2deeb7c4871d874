"""Conversion of the types that have no parts; see `conversion` for the forms."""

import base64
import binascii
from collections.abc import Callable
from functools import partial
from math import isnan
from struct import Struct
from typing import Any, Final, TypeAlias
from uuid import UUID

from sagakit.contracts import logical
from sagakit.contracts.avro_types import EnumType, Fixed, Node, Primitive

Convert: TypeAlias = Callable[[Any], Any]
"""One value to another. The writing direction raises `MismatchError`."""

_INTEGER_LIMIT: Final = {"int": 1 << 31, "long": 1 << 63}
_FLOAT: Final = Struct("<f")
_NOT_FINITE: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_DIGITS: Final = {"millis": 3, "micros": 6, "nanos": 9}


_SHOWN: Final[dict[type, str]] = {
    bool: "a boolean",
    int: "an integer",
    float: "a double",
    str: "text",
    list: "a list",
    dict: "a record or map",
}


class MismatchError(Exception):
    """A value that does not fit its type; `path` leads to it, innermost part first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str | int] = []


def shown(value: Any) -> str:
    """What kind of value it is, without the value: messages go to logs, where no business data belongs."""
    if value is None:
        return "null"
    return {
        bool: "a boolean",
        int: "an integer",
        float: "a double",
        str: "text",
        list: "a list",
        dict: "a record or map",
    }.get(type(value), f"a {type(value).__name__}")


def is_base64(node: Node) -> bool:
    """Whether values of the type are written in base64, which nearly any text could be."""
    return ((isinstance(node, Primitive) and node.kind == "bytes") or isinstance(node, Fixed)) and node.logical is None


# Reading -------------------------------------------------------------------------------------------------------------


def read_primitive(node: Primitive) -> Convert | None:
    """From the underlying value to its form; None where they are the same."""
    if node.logical == "decimal":
        return partial(_read_decimal, node.scale)
    if node.logical is not None and node.logical != "uuid":
        return _time_forms(node.logical)[0]
    if node.kind == "bytes":
        return _read_bytes
    if node.kind in ("float", "double"):
        return _read_double
    return None


def read_fixed(node: Fixed) -> Convert:
    """From the bytes to their form."""
    match node.logical:
        case "decimal":
            return partial(_read_decimal, node.scale)
        case "duration":
            return logical.duration_text
        case "uuid":
            return _read_uuid
    return _read_bytes


def _read_decimal(scale: int, raw: bytes) -> str:
    return logical.decimal_text(int.from_bytes(raw, "big", signed=True), scale)


def _read_bytes(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _read_uuid(raw: bytes) -> str:
    return str(UUID(bytes=raw))


def _read_double(raw: float) -> float | str:
    if raw - raw == 0.0:  # neither infinite nor not a number
        return raw
    return "NaN" if isnan(raw) else "Infinity" if raw > 0 else "-Infinity"


def _time_forms(name: str) -> tuple[Convert, Convert]:
    """How a date, time or timestamp is written, and how it is read back."""
    if name == "date":
        return logical.date_text, logical.parse_date
    digits = _DIGITS[name.rpartition("-")[2]]
    if name.startswith("time-"):
        return partial(logical.time_text, digits=digits), partial(logical.parse_time, digits=digits)
    suffix = "" if name.startswith("local-") else "Z"
    return (
        partial(logical.timestamp_text, digits=digits, suffix=suffix),
        partial(logical.parse_timestamp, digits=digits, suffix=suffix),
    )


# Writing -------------------------------------------------------------------------------------------------------------


def write_primitive(node: Primitive, *, strict: bool) -> Convert:
    """From the form to the underlying value; `strict` refuses what reading would not give back as it is."""
    match node.logical:
        case "decimal":
            write: Convert = partial(_write_decimal, node.precision, node.scale, None)
            return _exact(write, partial(_read_decimal, node.scale)) if strict else write
        case "uuid":
            return _write_uuid_text
        case str():
            read, parse = _time_forms(node.logical)
            write = partial(_write_time, parse, _INTEGER_LIMIT[node.kind])
            return _exact(write, read) if strict else write
    match node.kind:
        case "null":
            return _write_null
        case "boolean":
            return _write_boolean
        case "int" | "long":
            return partial(_write_integer, node.kind, _INTEGER_LIMIT[node.kind])
        case "float":
            return partial(_write_float, strict)
        case "double":
            return partial(_write_double, strict)
        case "bytes":
            return partial(_write_bytes, None)
    return text


def write_fixed(node: Fixed, *, strict: bool) -> Convert:
    """From the form to the bytes; `strict` as for `write_primitive`."""
    match node.logical:
        case "decimal":
            write: Convert = partial(_write_decimal, node.precision, node.scale, node.size)
        case "duration":
            write = _write_duration
        case "uuid":
            write = _write_uuid_bytes
        case _:
            return partial(_write_bytes, node.size)
    return _exact(write, read_fixed(node)) if strict else write


def write_enum(node: EnumType) -> Convert:
    """A symbol of the enum."""
    return partial(_write_enum, frozenset(node.symbols), node.name)


def default_datum(node: Primitive | Fixed | EnumType, default: Any) -> Any:
    """The underlying value of a default in Avro's JSON, where bytes are text of the code points 0 to 255.

    Raises:
        MismatchError: if the default does not fit the type.
    """
    if isinstance(node, EnumType):
        return write_enum(node)(default)
    if isinstance(node, Fixed) or node.kind == "bytes":
        try:
            raw = text(default).encode("latin-1")
        except UnicodeEncodeError as error:
            raise MismatchError("bytes in a default are text of the code points 0 to 255") from error
        if isinstance(node, Fixed) and len(raw) != node.size:
            raise MismatchError(f"{len(raw)} bytes, where {node.name} has {node.size}")
        return raw
    return write_primitive(Primitive(kind=node.kind), strict=False)(default)


def _exact(write: Convert, read: Convert) -> Convert:
    def convert(value: Any) -> Any:
        raw = write(value)
        if read(raw) != value:
            raise MismatchError("not in the one form of its type")
        return raw

    return convert


def text(value: Any) -> str:
    """Text that UTF-8 can hold."""
    if type(value) is not str:
        raise MismatchError(f"{shown(value)} is not text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise MismatchError(f"not valid Unicode text: {error.reason}") from error
    return value


def _write_null(value: Any) -> None:
    if value is not None:
        raise MismatchError(f"{shown(value)} is not null")


def _write_boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise MismatchError(f"{shown(value)} is not a boolean")
    return value


def _write_integer(kind: str, limit: int, value: Any) -> int:
    if type(value) is not int:
        raise MismatchError(f"{shown(value)} is not an integer")
    if not -limit <= value < limit:
        raise MismatchError(f"an integer too large for Avro's {kind}")
    return value


def _write_double(strict: bool, value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is str and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if type(value) is not int or strict:
        raise MismatchError(f"{shown(value)} is not a double")
    try:
        number = float(value)
    except OverflowError as error:
        raise MismatchError("an integer too large for a double") from error
    if int(number) != value:
        raise MismatchError("an integer that a double cannot hold exactly")
    return number


def _write_float(strict: bool, value: Any) -> float:
    number = _write_double(strict, value)
    try:
        short: float = _FLOAT.unpack(_FLOAT.pack(number))[0]
    except OverflowError as error:
        raise MismatchError("a double too large for Avro's float") from error
    if strict and short != number and not isnan(number):
        raise MismatchError("a double that Avro's float cannot hold exactly")
    return number


def _write_bytes(size: int | None, value: Any) -> bytes:
    try:
        raw = base64.b64decode(text(value).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise MismatchError("text that is not base64") from error
    if base64.b64encode(raw).decode() != value:
        raise MismatchError("base64 with bits left over")
    if size is not None and len(raw) != size:
        raise MismatchError(f"{len(raw)} bytes, where the type has {size}")
    return raw


def _write_enum(symbols: frozenset[str], name: str, value: Any) -> str:
    if type(value) is not str:
        raise MismatchError(f"{shown(value)} is not a symbol of {name}")
    if value not in symbols:
        raise MismatchError(f"text that is no symbol of {name} ({', '.join(sorted(symbols))})")
    return value


def _write_uuid_text(value: Any) -> str:
    _write_uuid_bytes(value)
    return str(value)


def _write_uuid_bytes(value: Any) -> bytes:
    try:
        raw = UUID(text(value)).bytes
    except ValueError as error:
        raise MismatchError("text that is not a UUID") from error
    return raw


def _write_duration(value: Any) -> bytes:
    try:
        return logical.parse_duration(text(value))
    except ValueError as error:
        raise MismatchError(f"not a duration: {error}") from error


def _write_time(parse: Convert, limit: int, value: Any) -> int:
    try:
        units: int = parse(text(value))
    except ValueError as error:
        raise MismatchError(f"not a date or time of this type: {error}") from error
    if not -limit <= units < limit:
        raise MismatchError("a date or time too far away for its type")
    return units


def _write_decimal(precision: int, scale: int, size: int | None, value: Any) -> bytes:
    try:
        unscaled = logical.parse_decimal(text(value), precision, scale)
        length = (unscaled + (unscaled < 0)).bit_length() // 8 + 1
        return unscaled.to_bytes(length if size is None else size, "big", signed=True)
    except ValueError as error:
        raise MismatchError(f"not a decimal of this type: {error}") from error
    except OverflowError as too_large:
        raise MismatchError("a decimal too large for its type") from too_large
