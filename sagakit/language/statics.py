"""What is known of a value before it is evaluated: its type to CEL and to Avro, and whether it is there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sagakit.contracts.avro_types import NULL, Array, EnumType, Fixed, Map, Node, Primitive, RecordType, Union
from sagakit.language import syntax
from sagakit.language.types import is_nullable, shown, without_null

STRING: Final = syntax.CelType(name="string")
BOOL: Final = syntax.CelType(name="bool")
UNKNOWN: Final = syntax.CelType(name="unknown")
"""The type of what another finding has already called wrong: nothing more is said of it."""

_NAMES: Final = {"boolean": "bool", "int": "int", "long": "int", "float": "double", "double": "double", "null": "null"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """What is known of a value before it is evaluated.

    Attributes:
        cel: its type to CEL; narrower than what the checker says where Avro knows more.
        avro: its type as Avro says it, null left out; None where it does not come from a record.
        nullable: whether it may be null.
        absent: why it may not be there at all; None if it is sure to be.
    """

    cel: syntax.CelType
    avro: Node | None = None
    nullable: bool = False
    absent: str | None = None

    def __str__(self) -> str:
        return shown(self.avro) if self.avro is not None else str(self.cel)

    @property
    def kind(self) -> str:
        """The name of the type that operators see: `record` for all records, `dyn` if it may be one of several."""
        return "record" if isinstance(self.avro, RecordType) else self.cel.name

    @property
    def is_definite(self) -> bool:
        """Whether its type is known (or something is known to be wrong with it already)."""
        return self.kind != "dyn"


def of_avro(node: Node, cel: syntax.CelType) -> Static:
    """A value of an Avro type, of which the checker says `cel`."""
    inner = without_null(node)
    return Static(cel=cel_of(inner, cel), avro=inner, nullable=is_nullable(node))


def cel_of(node: Node, cel: syntax.CelType = syntax.DYN) -> syntax.CelType:
    """The CEL type of the JSON form of an Avro type; `cel` for a record, whose message only the checker knows."""
    match node:
        case Primitive(logical=None):
            return syntax.CelType(name=_NAMES.get(node.kind, "string"))
        case Primitive() | Fixed() | EnumType():
            return STRING
        case Array():
            return syntax.CelType(name="list", parameters=(cel_of(node.items, _parameter(cel)),))
        case Map():
            return syntax.CelType(name="map", parameters=(STRING, cel_of(node.values, _parameter(cel))))
        case RecordType():
            return replace(cel, nullable=False)
        case Union() if is_nullable(node):
            return replace(cel_of(without_null(node), cel), nullable=True)
        case _:
            return syntax.DYN


def _parameter(cel: syntax.CelType) -> syntax.CelType:
    return cel.parameters[-1] if cel.parameters else syntax.DYN


def element_of(base: Static, *, second: bool = False) -> Static:
    """What a loop's variable is: an element, or a key (and the value, as the second variable)."""
    match base.avro:
        case Array():
            return of_avro(base.avro.items, _parameter(base.cel))
        case Map():
            return of_avro(base.avro.values, _parameter(base.cel)) if second else Static(cel=STRING)
    if base.cel == UNKNOWN:
        return base
    parameters = base.cel.parameters
    cel = parameters[-1 if second else 0] if parameters else syntax.DYN
    return Static(cel=replace(cel, nullable=False), nullable=cel.nullable and cel != syntax.DYN)


def list_of(elements: Sequence[Static], cel: syntax.CelType) -> Static:
    """A list of such elements, of which the checker says `cel`."""
    if not elements:
        return Static(cel=cel)
    nullable = any(element.nullable for element in elements)
    first, *rest = elements
    one_cel = all(_same(first.cel, element.cel) for element in rest)
    inner = replace(first.cel, nullable=nullable) if one_cel else _parameter(cel)
    avro = first.avro if all(element.avro == first.avro for element in rest) else None
    if avro is not None and nullable:
        avro = Union(branches=(NULL, *(avro.branches if isinstance(avro, Union) else (avro,))))
    array = Array(items=avro) if avro is not None else None
    return Static(cel=syntax.CelType(name="list", parameters=(inner,)), avro=array)


def either(one: Static, other: Static) -> Static:
    """What is known of a value that is one of two."""
    absent, nullable = one.absent or other.absent, one.nullable or other.nullable
    for literal, rest in ((one, other), (other, one)):
        if literal.cel.name == "null":
            return replace(rest, nullable=True, absent=absent)
    if UNKNOWN in (one.cel, other.cel):
        return Static(cel=UNKNOWN)
    avro = one.avro if one.avro == other.avro else None
    cel = one.cel if _same(one.cel, other.cel) else syntax.DYN
    return Static(cel=cel, avro=avro, nullable=nullable, absent=absent)


def _same(one: syntax.CelType, other: syntax.CelType) -> bool:
    return one.name == other.name and all(map(_same, one.parameters, other.parameters))
