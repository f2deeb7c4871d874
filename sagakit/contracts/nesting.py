"""A check of bytes before fastavro reads them, for the two kinds of schema with which few bytes can end the process.

A record that contains itself lets each byte nest one level deeper, and fastavro's compiled reader then overflows the
stack (a segmentation fault at 10,000 levels, which no `except` catches). An array whose items take no bytes lets a few
bytes announce a million of them. Schemas of neither kind need no check.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from sagakit.contracts.avro_types import Array, EnumType, Fixed, Map, Node, Primitive, RecordType, Union
from sagakit.contracts.errors import UndecodableError

MAX_DEPTH: Final = 100
"""How deep records may lie within each other."""

MAX_EMPTY_ITEMS: Final = 10_000
"""How many items without bytes one array may have."""

_Skip: TypeAlias = Callable[[bytes, int, int], int]
"""(bytes, position, depth) to the position after the value."""


def compile_check(root: RecordType) -> Callable[[bytes, int], None] | None:
    """A function (bytes, position) that raises `UndecodableError` for what must not be read; None if none is needed."""
    compiler = _Compiler()
    skip = compiler.node(root)
    if not compiler.needed:
        return None

    def check(data: bytes, position: int) -> None:
        try:
            skip(data, position, 0)
        except IndexError as error:
            raise UndecodableError("the bytes end within the record, or name a branch that its schema lacks") from error

    return check


class _Compiler:
    def __init__(self) -> None:
        self.needed = False
        self._records: dict[str, list[_Skip]] = {}

    def node(self, node: Node) -> _Skip:
        match node:
            case Primitive(kind="null"):
                return _skip_nothing
            case Primitive(kind="boolean"):
                return partial(_skip_bytes, 1)
            case Primitive(kind="float"):
                return partial(_skip_bytes, 4)
            case Primitive(kind="double"):
                return partial(_skip_bytes, 8)
            case Primitive(kind="int" | "long") | EnumType():
                return _skip_number
            case Primitive():
                return _skip_text
            case Fixed():
                return partial(_skip_bytes, node.size)
            case Array():
                empty = _may_be_empty(node.items, ())
                self.needed = self.needed or empty
                return partial(_skip_blocks, (self.node(node.items),), empty)
            case Map():
                return partial(_skip_blocks, (_skip_text, self.node(node.values)), False)
            case Union():
                return partial(_skip_union, tuple(self.node(branch) for branch in node.branches))
            case RecordType():
                return self._record(node)

    def _record(self, node: RecordType) -> _Skip:
        self.needed = self.needed or node.recursive
        if node.name not in self._records:
            fields = self._records[node.name] = []
            fields.extend(self.node(field.type) for field in node.fields)
        return partial(_skip_record, self._records[node.name])


def _may_be_empty(node: Node, within: tuple[RecordType, ...]) -> bool:
    """Whether a value of the type can take no bytes at all."""
    match node:
        case Primitive():
            return node.kind == "null"
        case Fixed():
            return node.size == 0
        case RecordType():
            return node not in within and all(_may_be_empty(field.type, (*within, node)) for field in node.fields)
    return False


def _number(data: bytes, position: int) -> tuple[int, int]:
    shift = encoded = 0
    while True:
        byte = data[position]
        position += 1
        encoded |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (encoded >> 1) ^ -(encoded & 1), position
        shift += 7
        if shift > 63:
            raise UndecodableError("a number longer than 64 bits")


def _skip_nothing(_data: bytes, position: int, _depth: int) -> int:
    return position


def _skip_bytes(size: int, _data: bytes, position: int, _depth: int) -> int:
    return position + size


def _skip_number(data: bytes, position: int, _depth: int) -> int:
    return _number(data, position)[1]


def _skip_text(data: bytes, position: int, _depth: int) -> int:
    length, position = _number(data, position)
    if length < 0:
        raise UndecodableError("text or bytes of a negative length")
    return position + length


def _skip_blocks(parts: tuple[_Skip, ...], empty: bool, data: bytes, position: int, depth: int) -> int:
    total = 0
    while True:
        count, position = _number(data, position)
        if count == 0:
            return position
        if count < 0:  # a block that also says how many bytes it has
            count = -count
            _, position = _number(data, position)
        total += count
        if empty and total > MAX_EMPTY_ITEMS:
            raise UndecodableError(f"an array that claims more than {MAX_EMPTY_ITEMS} items without bytes")
        for _ in range(count):
            for part in parts:
                position = part(data, position, depth)
            if position > len(data):
                raise UndecodableError("the bytes end within the record")


def _skip_union(branches: tuple[_Skip, ...], data: bytes, position: int, depth: int) -> int:
    branch, position = _number(data, position)
    if branch < 0:
        raise UndecodableError("a branch that the union lacks")
    return branches[branch](data, position, depth)


def _skip_record(fields: list[_Skip], data: bytes, position: int, depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise UndecodableError(f"records nested more than {MAX_DEPTH} deep")
    for field in fields:
        position = field(data, position, depth + 1)
    return position
