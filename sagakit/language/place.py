"""One place of a definition where expressions stand: type-checks them, and checks that they fill what they should."""

import re
from collections.abc import Mapping
from typing import Final, TypeVar

from sagakit.contracts.avro_types import MISSING, Array, EnumType, Fixed, Map, Node, Primitive, RecordType
from sagakit.language import syntax, wire
from sagakit.language.document import FieldValue
from sagakit.language.expressions import RUNTIME_ERRORS, Compiler, Problem, json_form, problems_of
from sagakit.language.findings import Finding
from sagakit.language.fits import UNCHECKED, avro_misfit, branches, cel_misfit, constant_misfit
from sagakit.language.guards import NOTHING, Facts, proven
from sagakit.language.inference import Inference
from sagakit.language.parse import meant
from sagakit.language.scope import Scope
from sagakit.language.source import Path, Source
from sagakit.language.statics import Static
from sagakit.language.types import is_nullable, shown

_UNDEFINED: Final = re.compile(r"undefined field '(\w+)' not found in struct '(\w+)'")
_OVERLOAD: Final = re.compile(r"found no matching overload for '(\w+)'")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([\w.]+)'")
_Kind = TypeVar("_Kind", Array, EnumType, Map, Primitive, RecordType)
_FLOAT: Final = Primitive(kind="float")
_DOUBLE: Final = Primitive(kind="double")


class Place:
    """Checks what stands at one place; findings gather in `findings`."""

    def __init__(self, scope: Scope, source: Source, literals: Compiler) -> None:
        self.findings: list[Finding] = []
        self._scope = scope
        self._source = source
        self._literals = literals
        self._path: Path = ()
        self._inference = Inference(scope, self._report, literals)

    # Single expressions ------------------------------------------------------------------------------------------

    def key(self, path: Path, text: str) -> None:
        """The business key: a string or an integer that is there."""
        node = self._tree(path, text)
        if node is None:
            return
        static = self._inference.present(node, NOTHING)
        kinds = [static.avro] if static.avro is not None else []
        kinds = [branch for kind in kinds for branch in branches(kind)]
        if not (all(map(_is_key, kinds)) if kinds else static.cel.name in ("string", "int", "unknown")):
            message = f"the business key is {static}, neither a string nor an integer"
            self._report("SK405", syntax.begin(node), message, "Take another field, or convert it: `string(…)`.")

    def condition(self, path: Path, text: str) -> None:
        """A condition: a boolean that is there."""
        node = self._tree(path, text)
        if node is None:
            return
        static = self._inference.sure(node, NOTHING)
        if static.cel.name not in ("bool", "unknown"):
            message = f"the condition is {static}, not a boolean"
            self._report("SK406", syntax.begin(node), message, "Compare it with something: `x != ''`, `x > 0`.")

    # Mappings ----------------------------------------------------------------------------------------------------

    def fields(self, path: Path, fields: Mapping[str, FieldValue], record: RecordType | None) -> None:
        """What fills a record; `record` is None if its schema cannot be had, then only the expressions are checked."""
        if record is not None:
            self._complete(path, set(fields), record)
        types = {} if record is None else {field.name: field.type for field in record.fields}
        for name, value in fields.items():
            self._value((*path, name), value, types.get(name))

    def _complete(self, path: Path, given: set[str], record: RecordType, offset: int | None = None) -> None:
        """That a mapping fills the fields that it must, and no others."""
        names = [field.name for field in record.fields]
        for name in sorted(given - set(names)):
            self._add(
                "SK401",
                (*path, name),
                f"{record.name} has no field `{name}`",
                meant(name, names),
                key=True,
                offset=offset,
            )
        for field in record.fields:
            if field.name not in given and field.default is MISSING:
                message = f"{record.name} needs the field `{field.name}` ({shown(field.type)})"
                remedy = f"Add `{field.name}: …`" + (" (`null` for none)." if is_nullable(field.type) else ".")
                self._add("SK402", path, message, remedy, key=True, offset=offset)

    def _value(self, path: Path, value: FieldValue, target: Node | None) -> None:
        if isinstance(value, str):
            node = self._tree(path, value)
            if node is not None:
                self._path = path
                self._fill(node, target, NOTHING)
        elif isinstance(value, Mapping):
            self._mapping(path, value, target)
        elif isinstance(value, list | tuple):
            array = _one(target, Array)
            if target is not None and array is None:
                self._add("SK403", path, f"a list is not {shown(target)}", f"The field takes {shown(target)}.")
            for index, element in enumerate(value):
                self._value((*path, index), element, array.items if array is not None else None)
        elif target is not None:
            misfit = constant_misfit(json_form(value), target)
            if misfit is not None:
                code = "SK309" if value is None else "SK404" if _one(target, EnumType) else "SK403"
                self._add(code, path, misfit, f"The field takes {shown(target)}.")

    def _mapping(self, path: Path, value: Mapping[str, FieldValue], target: Node | None) -> None:
        record, map_ = _one(target, RecordType), _one(target, Map)
        if record is not None:
            self.fields(path, value, record)
            return
        if target is not None and map_ is None:
            self._add("SK403", path, f"a mapping is not {shown(target)}", f"The field takes {shown(target)}.")
        for name, inner in value.items():
            self._value((*path, name), inner, map_.values if map_ is not None else None)

    # Expressions into fields -------------------------------------------------------------------------------------

    def _fill(self, node: syntax.Node, target: Node | None, facts: Facts) -> None:
        """Check an expression against the field that it fills, branch by branch of its conditions."""
        array, map_, record = _one(target, Array), _one(target, Map), _one(target, RecordType)
        match node:
            case syntax.Call(function="_?_:_", arguments=(condition, yes, no)):
                self._inference.condition(condition, facts)
                self._fill(yes, target, facts | proven(condition, truth=True))
                self._fill(no, target, facts | proven(condition, truth=False))
            case syntax.Call(function="default", arguments=(first, fallback)):
                with self._inference.tolerating():
                    self._fill(first, target, facts)
                self._fill(fallback, target, facts)
            case syntax.Call(function="dyn", arguments=(inner,)):
                self._fill(inner, target, facts)
            case syntax.ListOf() if array is not None:
                for element in node.elements:
                    self._fill(element, array.items, facts)
            case syntax.MapOf() if map_ is not None or record is not None:
                self._fill_mapping(node, map_, record, facts)
            case syntax.Loop() if array is not None and (body := syntax.mapped(node)) is not None:
                with self._inference.loop(node, facts) as inside:
                    self._fill(body, array.items, self._inference.passing(node, inside))
            case syntax.Constant() if target is not None:
                self._fill_constant(node, target)
            case _:
                self._fits(node, self._inference.value(node, facts), target)

    def _fill_mapping(self, node: syntax.MapOf, map_: Map | None, record: RecordType | None, facts: Facts) -> None:
        types = {} if record is None else {field.name: field.type for field in record.fields}
        names: set[str] = set()
        for key, value in node.entries:
            name = key.value if isinstance(key, syntax.Constant) and isinstance(key.value, str) else None
            if name is None:
                self._inference.sure(key, facts)
                if key.type.name not in ("string", "dyn") or record is not None:
                    message = (
                        f"the key `{syntax.text(key)}` of this map is no {'name of a field' if record else 'string'}"
                    )
                    self._report("SK403", syntax.begin(key), message, "Write the key as a text: `{'name': …}`.")
            else:
                names.add(name)
            self._fill(value, map_.values if map_ is not None else types.get(name or ""), facts)
        if record is not None:
            self._complete(self._path, names, record, offset=syntax.begin(node))

    def _fill_constant(self, node: syntax.Constant, target: Node) -> None:
        if isinstance(node.value, bytes):
            misfit = cel_misfit(node.type, target)
        else:
            misfit = constant_misfit(json_form(node.value), target)
        if misfit is not None and misfit != UNCHECKED:
            code = "SK309" if node.value is None else "SK404" if _one(target, EnumType) else "SK403"
            self._report(code, node.offset, misfit, f"The field takes {shown(target)}.")

    def _fits(self, node: syntax.Node, static: Static, target: Node | None) -> None:
        if target is None:
            return
        written = syntax.text(node)
        if static.nullable and not is_nullable(target):
            remedy = f"Guard it, `{written} != null ? {written} : …`, or write `default({written}, …)`."
            self._inference.fail("SK309", node, f"`{written}` may be null, the field ({shown(target)}) may not", remedy)
        misfit = cel_misfit(static.cel, target) if static.avro is None else avro_misfit(static.avro, target)
        if misfit == UNCHECKED:
            message = f"whether `{written}` has the form of {shown(target)} shows only at run time"
            self._report("SK407", syntax.begin(node), message, "Take it from a field of that type if there is one.")
        elif misfit is not None:
            message = f"`{written}` does not fit the field: {misfit}"
            to_double = static.cel.name == "int" and _one(target, Primitive) in (_FLOAT, _DOUBLE)
            remedy = f"Write `double({written})`." if to_double else f"The field takes {shown(target)}."
            self._report("SK403", syntax.begin(node), message, remedy)

    # Texts to trees ----------------------------------------------------------------------------------------------

    def _tree(self, path: Path, text: str) -> syntax.Node | None:
        """The typed tree of an expression; None if the checker refuses it."""
        self._path = path
        try:
            checked = wire.read(self._scope.env.compile(text).serialize())
        except RUNTIME_ERRORS as error:
            for problem in problems_of(error, text):
                self._refused(text, problem)
            return None
        return syntax.decode(checked)

    def _refused(self, text: str, problem: Problem) -> None:
        undefined, undeclared = _UNDEFINED.match(problem.message), _UNDECLARED.match(problem.message)
        message = self._scope.messages.readable(problem.message)
        if undefined is not None:
            record = self._scope.messages.record(undefined[2])
            fields = [] if record is None else [field.name for field in record.fields]
            name = "it" if record is None else record.name
            self._report(
                "SK304", problem.offset + 1, f"{name} has no field `{undefined[1]}`", meant(undefined[1], fields)
            )
        elif undeclared is not None:
            name = undeclared[1].split(".")[0]
            message = f"there is no variable or function `{name}`"
            self._report("SK305", _back(text, problem.offset, name), message, meant(name, self._scope.variables))
        elif "overload" in message or "operand" in message or "expression of type" in message:
            remedy = "Make the types match; convert with int(…), double(…) or string(…)."
            if "'_?_:_'" in message and "null" in message:
                remedy = "Write `dyn(null)` for null in a condition."
            called = _OVERLOAD.search(problem.message)
            offset = problem.offset if called is None else _back(text, problem.offset, called[1])
            self._report("SK306", offset, message, remedy)
        else:
            remedy = "Correct the expression; a constant text stands in quotes within: \"'text'\"."
            self._report("SK303", problem.offset, message, remedy)

    def _report(self, code: str, offset: int, message: str, remedy: str) -> None:
        self._add(code, self._path, message, remedy, offset=offset)

    def _add(
        self, code: str, path: Path, message: str, remedy: str, *, key: bool = False, offset: int | None = None
    ) -> None:
        self.findings.append(
            self._source.finding(code, path, message, remedy, key=key and offset is None, offset=offset)
        )


def _back(text: str, offset: int, name: str) -> int:
    """Where a name begins, of which the checker gives the place of the dot or the parenthesis that follows it."""
    before = text[:offset].rstrip()
    return len(before) - len(name) if before.endswith(name) else offset


def _is_key(node: Node) -> bool:
    """Whether the JSON form of a type is a text or an integer, and means something to people."""
    match node:
        case Primitive(logical=None):
            return node.kind in ("string", "int", "long")
        case Primitive() | EnumType():
            return True
        case _:
            return isinstance(node, Fixed) and node.logical is not None


def _one(target: Node | None, kind: type[_Kind]) -> _Kind | None:
    """The only branch of this kind that a field's type has."""
    found = [] if target is None else [branch for branch in branches(target) if isinstance(branch, kind)]
    return found[0] if len(found) == 1 else None
