"""Whether a value fits the field that it fills.

Constants are checked exactly, Avro types by Avro's own rules, computed values as far as CEL's types say.

Everything here answers with the reason why not, or None.
"""

from typing import Final

from sagakit.contracts import scalars
from sagakit.contracts.avro_types import MISSING, NULL, Array, EnumType, Fixed, Map, Node, Primitive, RecordType, Union
from sagakit.core.values import Value
from sagakit.language.syntax import CelType
from sagakit.language.types import is_nullable, shown, without_null

UNCHECKED: Final = "unchecked"
"""Not a reason why not: a text fills a logical type, and whether it has its form shows only at run time."""

_PROMOTIONS: Final = {
    "int": {"int", "long", "double"},
    "long": {"long"},
    "float": {"float", "double"},
    "double": {"double"},
}
"""Numbers that stand for others without loss (Avro lets a long stand for a double too, which holds 53 bits of it)."""

_NUMBERS: Final = {"int": ("int", "long"), "double": ("float", "double")}
_INSTANTS: Final = ("timestamp-millis", "timestamp-micros", "timestamp-nanos")
_LOCAL_INSTANTS: Final = ("local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos")
_TIMES: Final = ("time-millis", "time-micros")


def branches(node: Node) -> tuple[Node, ...]:
    """The types that a value of `node` may have, null left out."""
    inner = without_null(node)
    return inner.branches if isinstance(inner, Union) else () if inner == NULL else (inner,)


def constant_misfit(value: Value, target: Node) -> str | None:
    """Why a constant that is no list or mapping does not fit, checked by what will encode it."""
    if value is None:
        return None if is_nullable(target) else f"null cannot be {shown(target)}"
    reasons = [reason for branch in branches(target) if (reason := _scalar_misfit(value, branch)) is not None]
    return reasons[0] if len(reasons) == len(branches(target)) else None


def _scalar_misfit(value: Value, target: Node) -> str | None:
    match target:
        case Primitive():
            write = scalars.write_primitive(target, strict=False)
        case Fixed():
            write = scalars.write_fixed(target, strict=False)
        case EnumType():
            if value in target.symbols:
                return None
            return f"{value!r} is not among its symbols {', '.join(target.symbols)}"
        case _:
            return f"{value!r} is not {shown(target)}"
    try:
        write(value)
    except scalars.MismatchError as error:
        return f"{value!r} is not {shown(target)} ({error.reason})"
    return None


def avro_misfit(source: Node, target: Node) -> str | None:
    """Why a value of one Avro type does not fit another; `UNCHECKED` if that shows only at run time."""
    return _Avro().misfit(source, target)


class _Avro:
    def __init__(self) -> None:
        self._assumed: set[tuple[int, int]] = set()

    def misfit(self, source: Node, target: Node) -> str | None:
        if is_nullable(source) and not is_nullable(target):
            return f"{shown(source)} may be null, {shown(target)} may not"
        worst: str | None = None
        for one in branches(source):
            reasons = [self._one(one, other) for other in branches(target)]
            if None in reasons:
                continue
            reason = UNCHECKED if UNCHECKED in reasons else reasons[0] if len(reasons) == 1 else None
            reason = reason or f"{shown(one)} is not {shown(target)}"
            if worst in (None, UNCHECKED):
                worst = reason
        return worst

    def _one(self, source: Node, target: Node) -> str | None:
        match source, target:
            case RecordType(), RecordType():
                return self._record(source, target)
            case Array(), Array():
                return _within("its elements", self.misfit(source.items, target.items))
            case Map(), Map():
                return _within("its values", self.misfit(source.values, target.values))
            case EnumType(), EnumType():
                unknown = [symbol for symbol in source.symbols if symbol not in target.symbols]
                return f"{shown(target)} has no symbol {', '.join(unknown)}" if unknown else None
            case ((Primitive() | Fixed() | EnumType()), (Primitive() | Fixed() | EnumType())):
                return _scalars(source, target)
            case _:
                return f"{shown(source)} is not {shown(target)}"

    def _record(self, source: RecordType, target: RecordType) -> str | None:
        pair = (id(source), id(target))
        if source is target or pair in self._assumed:
            return None
        self._assumed.add(pair)
        there = {field.name: field for field in source.fields}
        wanted = {field.name: field for field in target.fields}
        for name in there.keys() - wanted.keys():
            return f"{target.name} has no field `{name}`, {source.name} has; build the record field by field"
        worst: str | None = None
        for name, field in wanted.items():
            if name not in there:
                if field.default is MISSING:
                    return f"{target.name} needs the field `{name}`, {source.name} has none"
                continue
            reason = _within(f"field `{name}`", self.misfit(there[name].type, field.type))
            if reason is not None and worst in (None, UNCHECKED):
                worst = reason
        return worst


def _within(where: str, reason: str | None) -> str | None:
    return reason if reason in (None, UNCHECKED) else f"{where}: {reason}"


def _scalars(source: Primitive | Fixed | EnumType, target: Primitive | Fixed | EnumType) -> str | None:
    """Scalars of records. The JSON forms of logical types, bytes, fixed and enums are texts of different alphabets."""
    no = f"{shown(source)} is not {shown(target)}"
    have, want = _logical(source), _logical(target)
    if have is not None and want is not None:
        return _logicals(source, target, no)
    plain_text = isinstance(source, Primitive) and source.kind == "string"
    if want is not None:
        return UNCHECKED if plain_text and have is None else no
    if isinstance(target, EnumType):
        return f"{no}: any text may stand there; choose between constants, `x == 'A' ? 'A' : 'B'`" if plain_text else no
    if isinstance(target, Primitive) and target.kind == "string":
        return None if plain_text or have is not None or isinstance(source, EnumType) else no
    if have is not None or isinstance(source, EnumType):
        return no
    if isinstance(target, Fixed):
        return None if isinstance(source, Fixed) and source.size == target.size else no
    if target.kind == "bytes":
        return None if isinstance(source, Fixed) or source.kind == "bytes" else no
    if isinstance(source, Fixed):
        return no
    return None if target.kind == source.kind or target.kind in _PROMOTIONS.get(source.kind, ()) else no


def _logical(node: Primitive | Fixed | EnumType) -> str | None:
    return None if isinstance(node, EnumType) else node.logical


def _logicals(source: Primitive | Fixed | EnumType, target: Primitive | Fixed | EnumType, no: str) -> str | None:
    if isinstance(source, EnumType) or isinstance(target, EnumType):
        return no
    have, want = source.logical, target.logical
    if have == want == "decimal":
        whole, room = source.precision - source.scale, target.precision - target.scale
        return None if source.scale <= target.scale and whole <= room else f"{no}: digits would be lost"
    for family in (_INSTANTS, _LOCAL_INSTANTS, _TIMES):
        if have in family and want in family:
            return None if family.index(have) <= family.index(want) else f"{no}: precision would be lost"
    return None if have == want else no


def cel_misfit(source: CelType, target: Node) -> str | None:
    """Why a computed value does not fit; `UNCHECKED` as for `avro_misfit`."""
    if source.name == "unknown":
        return None
    if source.name == "dyn":
        return f"it may be of any type, the field takes {shown(target)}"
    if source.name == "null":
        return None if is_nullable(target) else f"null cannot be {shown(target)}"
    reasons = [_computed(source, branch) for branch in branches(target)]
    if None in reasons:
        return None
    if UNCHECKED in reasons:
        return UNCHECKED
    return reasons[0] if len(reasons) == 1 else f"{source} is not {shown(target)}"


def _computed(source: CelType, target: Node) -> str | None:
    no = f"{source} is not {shown(target)}"
    match source.name, target:
        case "list", Array():
            return _within("its elements", cel_misfit(source.parameters[0], target.items))
        case "map", Map() if source.parameters[0].name in ("string", "dyn"):
            return _within("its values", cel_misfit(source.parameters[1], target.values))
        case "map", RecordType() if source.parameters[0].name in ("string", "dyn"):
            return f"{no}: write the map out, or build the record field by field"
        case "string", EnumType():
            return f"{no}: any text may stand there; choose between constants, `x ? 'A' : 'B'`"
        case "string", (Primitive() | Fixed()) if target.logical is not None:
            return UNCHECKED
        case "timestamp", Primitive():
            return None if target.logical in _INSTANTS or (target.logical is None and target.kind == "string") else no
        case "duration", (Primitive() | Fixed()):
            text = isinstance(target, Primitive) and target.logical is None and target.kind == "string"
            return None if target.logical == "duration" or text else no
        case "bytes", Fixed() if target.logical is None:
            return UNCHECKED
        case name, Primitive(logical=None):
            fitting = _NUMBERS.get(name, ("boolean",) if name == "bool" else (name,))
            return None if target.kind in fitting else no
        case _:
            return no
