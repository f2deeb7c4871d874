"""Avro's binary form of what our own records are made of (specification, "Binary Encoding"), as parts to be joined.

The records that the engine writes for every event go to the wire straight from the core's values, field by field in the
order of their schemas. Why not fastavro: it looks at each field's schema anew, and wants each record as a dictionary
first; both came to a fifth of the engine's time per saga. Reading stays fastavro's.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

Parts: TypeAlias = list[bytes]
"""What was written so far, to be joined."""

NULL: Final = b"\x00"
"""The first branch of a union, which in our schemas is null, or an empty array."""

SOME: Final = b"\x02"
"""The second branch of a union: where there are two, the one that is not null."""

REMEMBERED: Final = 65_536
"""How many numbers, and how many names, are remembered at most."""

_numbers: Final[dict[int, bytes]] = {}
_names: Final[dict[str, bytes]] = {}


def branch(number: int) -> bytes:
    """What tells the branch of a union with several records."""
    return long(number)


def long(number: int) -> bytes:
    """An int or long, zig-zag and variable-length; the latest are remembered (times repeat within a cycle).

    Raises:
        OverflowError: it does not fit in 64 bits.
    """
    known = _numbers.get(number)
    return _encoded(number) if known is None else known


def _encoded(number: int) -> bytes:
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError(f"{number} does not fit in Avro's long")
    left = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while left > 0x7F:
        encoded.append(left & 0x7F | 0x80)
        left >>= 7
    encoded.append(left)
    if len(_numbers) >= REMEMBERED:
        _numbers.clear()
    known = _numbers[number] = bytes(encoded)
    return known


def name(text: str) -> bytes:
    """A string of which there are few: names of definitions, steps, topics, types. The latest are remembered."""
    known = _names.get(text)
    if known is None:
        raw = text.encode()
        if len(_names) >= REMEMBERED:
            _names.clear()
        known = _names[text] = long(len(raw)) + raw
    return known


def put_string(parts: Parts, text: str) -> None:
    """A string."""
    raw = text.encode()
    parts.append(long(len(raw)))
    parts.append(raw)


def put_optional_string(parts: Parts, text: str | None) -> None:
    """A string that may be null."""
    if text is None:
        parts.append(NULL)
    else:
        parts.append(SOME)
        put_string(parts, text)


def put_optional_name(parts: Parts, text: str | None) -> None:
    """A `name` that may be null."""
    if text is None:
        parts.append(NULL)
    else:
        parts.append(SOME)
        parts.append(name(text))


def put_bytes(parts: Parts, raw: bytes) -> None:
    """Bytes."""
    parts.append(long(len(raw)))
    parts.append(raw)


def put_long(parts: Parts, number: int) -> None:
    """An int or long."""
    parts.append(long(number))


def put_optional_long(parts: Parts, number: int | None) -> None:
    """An int or long that may be null."""
    if number is None:
        parts.append(NULL)
    else:
        parts.append(SOME)
        parts.append(long(number))


def put_boolean(parts: Parts, value: bool) -> None:
    """A boolean."""
    parts.append(b"\x01" if value else b"\x00")


def put_array(parts: Parts, count: int, items: Iterable[Any], put: Callable[[Parts, Any], None]) -> None:
    """An array of `count` items, in one block."""
    if count:
        parts.append(long(count))
        for item in items:
            put(parts, item)
    parts.append(NULL)
