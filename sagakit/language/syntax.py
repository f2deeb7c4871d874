"""A CEL expression as a tree, decoded from what the official runtime's parser and checker give."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sagakit.language.wire import ONEOF, Checked

_PRIMITIVES: Final = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_WELL_KNOWN: Final = {1: "dyn", 2: "timestamp", 3: "duration"}


Literal: TypeAlias = bool | int | float | str | bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CelType:
    """A type of the CEL checker: `name` with its parameters; `nullable` for a wrapper or a message."""

    name: str
    parameters: tuple["CelType", ...] = ()
    nullable: bool = False

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})" if self.parameters else self.name


DYN: Final = CelType(name="dyn", nullable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    offset: int
    type: CelType


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(_Node):
    """A literal: null, bool, int, float, str or bytes."""

    value: Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Name(_Node):
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(_Node):
    """`operand.field`, or with `test` the macro `has(operand.field)`."""

    operand: "Node"
    field: str
    test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(_Node):
    """An operator (`_+_`, `_?_:_`, `_[_]`) or function; the receiver of a method is the first argument."""

    function: str
    arguments: tuple["Node", ...]
    method: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf(_Node):
    """A list literal."""

    elements: tuple["Node", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf(_Node):
    """A map literal."""

    entries: tuple[tuple["Node", "Node"], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLiteral(_Node):
    """A message literal: part of CEL, not of the saga language."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop(_Node):
    """What the macros all, exists, exists_one, map and filter expand to."""

    variable: str
    variable2: str
    range: "Node"
    accumulator: str
    initial: "Node"
    condition: "Node"
    step: "Node"
    result: "Node"


Node: TypeAlias = Constant | Name | Select | Call | ListOf | MapOf | MessageLiteral | Loop


def decode(checked: Checked) -> Node:
    """The tree of a checked expression."""
    return _Decoder(checked).node(checked.expr, 0)


class _Decoder:
    def __init__(self, checked: Checked) -> None:
        self._types = checked.type_map
        self._positions = checked.source_info.positions

    def node(self, expr: Any, parent: int) -> Node:
        at: dict[str, Any] = {
            "offset": self._positions.get(expr.id, parent),
            "type": _cel_type(self._types[expr.id]) if expr.id in self._types else DYN,
        }
        offset = at["offset"]
        match expr.WhichOneof(ONEOF):
            case "const":
                return Constant(value=_constant(expr.const), **at)
            case "ident":
                return Name(name=expr.ident.name, **at)
            case "select":
                select = expr.select
                operand = self.node(select.operand, offset)
                return Select(operand=operand, field=select.field, test=select.test_only, **at)
            case "call":
                call = expr.call
                receiver = [call.target] if call.HasField("target") else []
                arguments = tuple(self.node(argument, offset) for argument in [*receiver, *call.args])
                return Call(function=call.function, arguments=arguments, method=bool(receiver), **at)
            case "list":
                return ListOf(elements=tuple(self.node(element, offset) for element in expr.list.elements), **at)
            case "struct" if expr.struct.message_name:
                return MessageLiteral(name=expr.struct.message_name, **at)
            case "struct":
                entries = expr.struct.entries
                return MapOf(
                    entries=tuple((self.node(e.map_key, offset), self.node(e.value, offset)) for e in entries), **at
                )
            case _:
                return self._loop(expr.comprehension, at)

    def _loop(self, loop: Any, at: dict[str, Any]) -> Node:
        offset = at["offset"]
        return Loop(
            variable=loop.iter_var,
            variable2=loop.iter_var2,
            range=self.node(loop.iter_range, offset),
            accumulator=loop.accu_var,
            initial=self.node(loop.accu_init, offset),
            condition=self.node(loop.loop_condition, offset),
            step=self.node(loop.loop_step, offset),
            result=self.node(loop.result, offset),
            **at,
        )


def _constant(constant: Any) -> Literal:
    kind = constant.WhichOneof(ONEOF)
    value: Literal = None if kind == "null" else getattr(constant, kind)
    return value


def _cel_type(type_: Any) -> CelType:
    match type_.WhichOneof(ONEOF):
        case "null":
            return CelType(name="null", nullable=True)
        case "primitive":
            return CelType(name=_PRIMITIVES[type_.primitive])
        case "wrapper":
            return CelType(name=_PRIMITIVES[type_.wrapper], nullable=True)
        case "well_known":
            return CelType(name=_WELL_KNOWN[type_.well_known], nullable=type_.well_known == 1)
        case "list_type":
            return CelType(name="list", parameters=(_cel_type(type_.list_type.elem),))
        case "map_type":
            return CelType(name="map", parameters=(_cel_type(type_.map_type.key), _cel_type(type_.map_type.value)))
        case "message_type":
            return CelType(name=type_.message_type, nullable=True)
        case "type":
            return CelType(name="type")
        case _:
            return DYN


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below a node, in the order of evaluation."""
    match node:
        case Select():
            return (node.operand,)
        case Call():
            return node.arguments
        case ListOf():
            return node.elements
        case MapOf():
            return tuple(part for entry in node.entries for part in entry)
        case Loop():
            return (node.range, node.initial, node.condition, node.step, node.result)
        case _:
            return ()


def descend(node: Node) -> Iterator[Node]:
    """A node and all below it."""
    yield node
    for child in children(node):
        yield from descend(child)


def begin(node: Node) -> int:
    """The offset at which the text of a node begins (its own offset is that of its operator, dot or parenthesis)."""
    return min(_first(part) for part in descend(node))


def _first(node: Node) -> int:
    if isinstance(node, Call) and not node.method and node.function.isidentifier() and "_" not in node.function[:1]:
        return max(0, node.offset - len(node.function))
    return node.offset


def text(node: Node) -> str:
    """A node as text: equal for nodes that say the same, whatever their layout."""
    match node:
        case Constant():
            return repr(node.value) if isinstance(node.value, bytes) else json.dumps(node.value, ensure_ascii=False)
        case Name():
            return node.name
        case Select():
            plain = f"{text(node.operand)}.{node.field}"
            return f"has({plain})" if node.test else plain
        case Call(function="_[_]"):
            return f"{text(node.arguments[0])}[{text(node.arguments[1])}]"
        case Call():
            return f"{node.function}({', '.join(map(text, node.arguments))})"
        case ListOf():
            return f"[{', '.join(map(text, node.elements))}]"
        case MapOf():
            return f"{{{', '.join(f'{text(key)}: {text(value)}' for key, value in node.entries)}}}"
        case MessageLiteral():
            return f"{node.name}{{…}}"
        case Loop():
            return f"loop({node.variable}, {', '.join(map(text, children(node)))})"


def mapped(loop: Loop) -> Node | None:
    """What `map` puts into its result (or `filter`: the variable itself); None for the other macros."""
    step = loop.step
    if isinstance(step, Call) and step.function == "_?_:_":
        step = step.arguments[1]
    match step:
        case Call(function="_+_", arguments=(Name(), ListOf(elements=(body,)))):
            return body
    return None
