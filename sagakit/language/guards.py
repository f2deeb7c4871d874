"""What a condition proves: facts that hold where it is true, or where it is false.

A fact is a tuple whose first part says of what kind it is; expressions in it stand as canonical text, so that the same
expression is recognised wherever it is written again.
"""

from typing import Final, TypeAlias

from sagakit.language import syntax
from sagakit.language.expressions import path_of

Fact: TypeAlias = tuple[str, ...]
Facts: TypeAlias = frozenset[Fact]

NOTHING: Final[Facts] = frozenset()

THERE: Final = "there"
"""`(THERE, x)`: x has a value and is not null."""

HAS_REPLY: Final = "has-reply"
"""`(HAS_REPLY, variable)`: some field of it has a value, so all of it is there."""

NOT_ZERO: Final = "not-zero"
MATCHED: Final = "matched"
"""`(MATCHED, x)`: the text x was compared with a regular expression."""

HAS_KEY: Final = "has-key"
"""`(HAS_KEY, map, key)`."""

LONGER: Final = "longer"
"""`(LONGER, list, n)`: the list has more than n elements."""

OF_TYPE: Final = "of-type"
"""`(OF_TYPE, x, name)`: x is of the CEL type of this name."""

_SWAPPED: Final = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_", "_==_": "_==_", "_!=_": "_!=_"}
_NEGATED: Final = {"_<_": "_>=_", "_<=_": "_>_", "_>_": "_<=_", "_>=_": "_<_", "_==_": "_!=_", "_!=_": "_==_"}


def proven(node: syntax.Node, *, truth: bool) -> Facts:
    """The facts that hold if `node` is true (or, with `truth=False`, if it is false)."""
    match node:
        case syntax.Select(test=True) if truth:
            return _there(syntax.Select(operand=node.operand, field=node.field, offset=node.offset, type=node.type))
        case syntax.Call(function="!_", arguments=(inner,)):
            return proven(inner, truth=not truth)
        case syntax.Call(function="_&&_" | "_||_", arguments=(left, right)):
            one, other = proven(left, truth=truth), proven(right, truth=truth)
            both_hold = (node.function == "_&&_") == truth
            return one | other if both_hold else one & other
        case syntax.Call(function="matches", arguments=(subject, _)) if truth:
            return frozenset({(MATCHED, syntax.text(subject))})
        case syntax.Call(function="@in", arguments=(key, container)) if truth:
            return frozenset({(HAS_KEY, syntax.text(container), syntax.text(key))})
        case syntax.Call(arguments=(left, right)) if node.function in _SWAPPED:
            function = node.function if truth else _NEGATED[node.function]
            return _compared(function, left, right) | _compared(_SWAPPED[function], right, left)
    return NOTHING


def without(facts: Facts, *names: str) -> Facts:
    """The facts that say nothing of these variables: inside a loop they mean something else."""
    return frozenset(fact for fact in facts if not any(_mentions(part, name) for part in fact[1:] for name in names))


def _mentions(text: str, name: str) -> bool:
    at = text.find(name)
    while at >= 0:
        before, after = text[at - 1 : at] if at else "", text[at + len(name) : at + len(name) + 1]
        if not (before.isalnum() or before == "_" or after.isalnum() or after == "_"):
            return True
        at = text.find(name, at + 1)
    return False


def _there(node: syntax.Node) -> Facts:
    """What follows from `node` having a value: what it is reached through has one too."""
    facts: set[Fact] = {(THERE, syntax.text(node))}
    path = path_of(node)
    if path is not None and len(path) > 1:
        facts.add((HAS_REPLY, path[0]))
    return frozenset(facts)


def _compared(function: str, left: syntax.Node, right: syntax.Node) -> Facts:
    """What `left <function> right` proves of `left`."""
    match left, right:
        case syntax.Call(function="type", arguments=(subject,)), syntax.Name(name=name) if function == "_==_":
            return frozenset({(OF_TYPE, syntax.text(subject), name)})
    if not isinstance(right, syntax.Constant):
        return NOTHING
    value = right.value
    if value is None:
        return _there(left) if function == "_!=_" else NOTHING
    facts: set[Fact] = set()
    if function == "_==_":
        facts |= _there(left)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if _excludes_zero(function, value):
            facts.add((NOT_ZERO, syntax.text(left)))
        measured = _size_of(left)
        if measured is not None and isinstance(value, int):
            facts |= {
                (LONGER, syntax.text(measured), str(n)) for n in range(min(_least(function, value), _INDICES_MAX))
            }
    return frozenset(facts)


_INDICES_MAX: Final = 64
"""Larger constant indices are not written by hand."""


def _excludes_zero(function: str, value: float) -> bool:
    match function:
        case "_!=_":
            return value == 0
        case "_==_":
            return value != 0
        case "_>_":
            return value >= 0
        case "_>=_":
            return value > 0
        case "_<_":
            return value <= 0
        case _:
            return value < 0


def _least(function: str, value: int) -> int:
    """How many elements a list has at least whose size compares so."""
    match function:
        case "_>_":
            return value + 1
        case "_>=_" | "_==_":
            return value
        case "_!=_":
            return 1 if value == 0 else 0
        case _:
            return 0


def _size_of(node: syntax.Node) -> syntax.Node | None:
    return node.arguments[0] if isinstance(node, syntax.Call) and node.function == "size" else None
