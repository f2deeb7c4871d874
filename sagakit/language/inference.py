"""What an expression reads and yields at its place: types along Avro records, null, absence, and what may fail.

The CEL checker knows operators and functions; this walk knows the data. It follows Avro types along paths (also where
the checker sees only `dyn`, and then asks it again with the types that are known), carries what conditions have proven,
and reports every value that is used as if it were sure to be there but is not.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from cel_expr_python import cel

from sagakit.contracts.avro_types import Array, Map, Node, RecordType, Union
from sagakit.core.values import EvaluationError
from sagakit.language import syntax, wire
from sagakit.language.desugar import DEFAULT
from sagakit.language.expressions import RUNTIME_ERRORS, Compiler, problems_of
from sagakit.language.guards import (
    HAS_KEY,
    HAS_REPLY,
    LONGER,
    MATCHED,
    NOT_ZERO,
    OF_TYPE,
    THERE,
    Facts,
    proven,
    without,
)
from sagakit.language.parse import meant
from sagakit.language.scope import Scope
from sagakit.language.statics import BOOL, UNKNOWN, Static, cel_of, either, element_of, list_of, of_avro
from sagakit.language.types import field_type, shown

Report = Callable[[str, int, str, str], None]
"""Takes a finding: code, offset in the expression, message, remedy."""

_SURE: Final = {
    "int": {"int", "bool", "timestamp"},
    "uint": {"uint"},
    "double": {"int", "uint", "double"},
    "bool": {"bool"},
    "string": {"string", "int", "uint", "double", "bool", "timestamp", "duration"},
    "bytes": {"string", "bytes"},
    "timestamp": {"timestamp"},
    "duration": {"duration"},
}
"""Conversions, and the types that each converts without ever failing."""

_COMPARISONS: Final = frozenset({"_==_", "_!=_"})
_OPERATORS: Final = {"!_": "!a0", "-_": "-a0", "_[_]": "a0[a1]", "@in": "a0 in a1"}


class Inference:
    """Walks the expressions of one place. `literals` evaluates what does not depend on data."""

    def __init__(self, scope: Scope, report: Report, literals: Compiler) -> None:
        self._scope = scope
        self._report = report
        self._literals = literals
        self._loops: dict[str, Static] = {}
        self._tolerant = 0

    # What a value must be ------------------------------------------------------------------------------------------

    def value(self, node: syntax.Node, facts: Facts) -> Static:
        """What `node` is, where null will do."""
        static = self.infer(node, facts)
        self._demand(node, static, null=True)
        return replace(static, absent=None)

    def present(self, node: syntax.Node, facts: Facts) -> Static:
        """What `node` is, where it must be there and not null."""
        static = self.infer(node, facts)
        self._demand(node, static, null=False)
        return replace(static, absent=None, nullable=False)

    def sure(self, node: syntax.Node, facts: Facts) -> Static:
        """What `node` is, where it must be there, not be null, and be of one type."""
        static = self.present(node, facts)
        if not static.is_definite:
            written = syntax.text(node)
            what = f"may be {shown(static.avro)}" if static.avro is not None else "may be of any type"
            remedy = f"Guard it, `type({written}) == string ? … : …`, or write `default(…, …)` around the whole."
            self.fail("SK306", node, f"`{written}` {what}", remedy)
        return static

    def condition(self, node: syntax.Node, facts: Facts) -> None:
        """Where `node` must be true or false."""
        static = self.sure(node, facts)
        if static.cel.name not in ("bool", "unknown", "dyn"):
            remedy = "Compare it with something: `x != ''`, `x > 0`."
            self.fail("SK306", node, f"`{syntax.text(node)}` is {static}, not a boolean", remedy)

    def _demand(self, node: syntax.Node, static: Static, *, null: bool) -> None:
        written = syntax.text(node)
        if static.absent is not None:
            remedy = f"Guard it, `has({written}) ? … : …`, or write `default({written}, …)`."
            self.fail("SK310", node, f"`{written}` may be absent: {static.absent}", remedy)
        elif static.nullable and not null:
            remedy = f"Guard it, `{written} != null ? … : …`, or write `default({written}, …)`."
            self.fail("SK309", node, f"`{written}` may be null", remedy)

    def fail(self, code: str, node: syntax.Node, message: str, remedy: str) -> None:
        """Report what may fail at run time; inside `default(…)` it may."""
        if not self._tolerant:
            self._report(code, syntax.begin(node), message, remedy)

    @contextmanager
    def tolerating(self) -> Iterator[None]:
        """Within the first argument of `default`: what may fail there is answered for."""
        self._tolerant += 1
        try:
            yield
        finally:
            self._tolerant -= 1

    # What a node is ------------------------------------------------------------------------------------------------

    def infer(self, node: syntax.Node, facts: Facts) -> Static:
        """What `node` is; what it uses on the way must be there."""
        match node:
            case syntax.Constant():
                return Static(cel=node.type, nullable=node.value is None)
            case syntax.Name():
                return self._name(node, facts)
            case syntax.Select():
                return self._select(node, facts)
            case syntax.Call():
                return self._call(node, facts)
            case syntax.ListOf():
                return list_of([self.value(element, facts) for element in node.elements], node.type)
            case syntax.MapOf():
                return self._map(node, facts)
            case syntax.MessageLiteral():
                message = f"a message literal ({node.name}) is not part of the saga language"
                self._report("SK315", node.offset, message, "Write a map: {'field': value}.")
                return Static(cel=UNKNOWN)
            case syntax.Loop():
                return self._loop(node, facts)

    def _map(self, node: syntax.MapOf, facts: Facts) -> Static:
        for key, _ in node.entries:
            self.sure(key, facts)
        values = list_of([self.value(value, facts) for _, value in node.entries], node.type)
        keys = node.type.parameters[0] if node.type.parameters else syntax.DYN
        return Static(cel=replace(node.type, parameters=(keys, values.cel.parameters[-1]))) if node.entries else values

    def _loop(self, node: syntax.Loop, facts: Facts) -> Static:
        with self.loop(node, facts) as inner:
            if (body := syntax.mapped(node)) is not None:
                return list_of([self.value(body, self.passing(node, inner))], node.type)
            for part in (node.condition, node.step, node.result):
                self.sure(part, inner)
        return self._typed(node.type)

    def passing(self, node: syntax.Loop, facts: Facts) -> Facts:
        """What holds of an element that `filter`, or `map` with a condition, lets through."""
        if isinstance(node.step, syntax.Call) and node.step.function == "_?_:_":
            condition = node.step.arguments[0]
            self.condition(condition, facts)
            return facts | proven(condition, truth=True)
        return facts

    def _typed(self, of_checker: syntax.CelType) -> Static:
        """What is known of a value of which only the checker knows."""
        avro = self._avro(of_checker)
        nullable = of_checker.nullable and avro is None and of_checker != syntax.DYN
        return Static(cel=replace(of_checker, nullable=False), avro=avro, nullable=nullable)

    def _avro(self, of_checker: syntax.CelType) -> Node | None:
        if of_checker.name in ("list", "map"):
            inner = self._avro(of_checker.parameters[-1])
            return None if inner is None else Array(items=inner) if of_checker.name == "list" else Map(values=inner)
        return self._scope.messages.record(of_checker.name)

    # Paths ---------------------------------------------------------------------------------------------------------

    def _name(self, node: syntax.Name, facts: Facts) -> Static:
        if node.name in self._loops:
            return self._guarded(node, self._loops[node.name], facts)
        variable = self._scope.variables.get(node.name)
        if variable is None:  # a type used as a value, `type(x) == int`
            return Static(cel=node.type)
        if variable.refused is not None:
            code, message, remedy = variable.refused
            self._report(code, node.offset, message, remedy)
        absent = None if (HAS_REPLY, node.name) in facts else variable.may_be_absent
        return Static(cel=node.type if variable.record else UNKNOWN, avro=variable.record, absent=absent)

    def _select(self, node: syntax.Select, facts: Facts) -> Static:
        operand = node.operand
        if (
            isinstance(operand, syntax.Name)
            and operand.name not in self._loops
            and operand.name in self._scope.variables
        ):
            base = self._name(operand, facts)
        else:
            base = self.present(operand, facts)
        static = self._member(node, base, facts)
        return Static(cel=node.type) if node.test else self._guarded(node, static, facts)

    @staticmethod
    def _guarded(node: syntax.Node, static: Static, facts: Facts) -> Static:
        """What is known of a value, with what conditions have proven of it."""
        written = syntax.text(node)
        if (THERE, written) in facts:
            static = replace(static, nullable=False, absent=None)
        if isinstance(static.avro, Union):
            for branch in static.avro.branches:
                of_branch = cel_of(branch)
                if (OF_TYPE, written, of_branch.name) in facts:
                    return replace(static, cel=of_branch, avro=branch, nullable=False, absent=None)
        return static

    def _member(self, node: syntax.Select, base: Static, facts: Facts) -> Static:
        match base.avro:
            case RecordType():
                found = field_type(base.avro, node.field)
                if found is not None:
                    return replace(of_avro(found, node.type), absent=base.absent)
                message = f"{base.avro.name} has no field `{node.field}`"
                self._report("SK304", node.offset + 1, message, meant(node.field, (f.name for f in base.avro.fields)))
                return Static(cel=UNKNOWN)
            case Map():
                key = (HAS_KEY, syntax.text(node.operand), f'"{node.field}"')
                absent = None if key in facts else f"the map may have no key '{node.field}'"
                return replace(of_avro(base.avro.values, node.type), absent=absent)
            case Union():
                return Static(cel=syntax.DYN, nullable=True, absent=f"not every {base} has a `{node.field}`")
        match base.cel.name:
            case "unknown":
                return base
            case "map":
                absent = f"nothing says that it has a `{node.field}`"
                return replace(self._typed(base.cel.parameters[-1]), absent=absent)
            case "dyn":
                return Static(
                    cel=syntax.DYN, nullable=True, absent=f"it may be anything, also without a `{node.field}`"
                )
        message = f"`{syntax.text(node.operand)}` is {base}, which has no `{node.field}`"
        self.fail("SK304", node, message, "Leave it out.")
        return Static(cel=UNKNOWN)

    def _index(self, node: syntax.Call, facts: Facts) -> Static:
        container, index = node.arguments
        base, place = self.sure(container, facts), self.sure(index, facts)
        written, key = syntax.text(container), syntax.text(index)
        guarded = (
            (THERE, syntax.text(node)) in facts or (HAS_KEY, written, key) in facts or (LONGER, written, key) in facts
        )
        if not guarded and not _is_within(container, index):
            of_map = base.cel.name == "map"
            condition = f"{key} in {written}" if of_map else f"size({written}) > {key}"
            remedy = f"Guard it, `{condition} ? … : …`, or write `default({syntax.text(node)}, …)`."
            what = f"the map `{written}` may have no key {key}" if of_map else f"`{written}` may have no element {key}"
            self.fail("SK311", node, what, remedy)
        match base.avro:
            case Array():
                static = of_avro(base.avro.items, node.type)
            case Map():
                static = of_avro(base.avro.values, node.type)
            case _:
                static = self._typed(self._checked_again(node, [base, place]))
        return self._guarded(node, static, facts)

    # Operators and functions ---------------------------------------------------------------------------------------

    def _call(self, node: syntax.Call, facts: Facts) -> Static:
        match node.function:
            case "_&&_" | "_||_":
                left, right = node.arguments
                self.condition(left, facts)
                self.condition(right, facts | proven(left, truth=node.function == "_&&_"))
                return Static(cel=BOOL)
            case "_?_:_":
                condition, yes, no = node.arguments
                self.condition(condition, facts)
                one = self.infer(yes, facts | proven(condition, truth=True))
                return either(one, self.infer(no, facts | proven(condition, truth=False)))
            case "_[_]":
                return self._index(node, facts)
            case function if function in _COMPARISONS:
                return self._compare(node, facts)
            case "default":
                return self._default(node, facts)
            case "type" | "dyn":
                inner = self.value(node.arguments[0], facts)
                return inner if node.function == "dyn" else Static(cel=node.type)
            case _:
                return self._function(node, facts)

    def _function(self, node: syntax.Call, facts: Facts) -> Static:
        statics = [self.sure(argument, facts) for argument in node.arguments]
        result = Static(cel=self._checked_again(node, statics))
        if result.cel == UNKNOWN:
            return result
        if node.function in ("_/_", "_%_"):
            self._divide(node, statics[1], facts)
        elif node.function in _SURE and not node.method:
            self._convert(node, statics[0], facts)
        elif node.function == "matches" and isinstance(node.arguments[1], syntax.Constant):
            nothing = replace(node.arguments[1], value="")
            self._evaluate(node, replace(node, arguments=(nothing, node.arguments[1])))
        return self._typed(result.cel)

    def _checked_again(self, node: syntax.Call, statics: Sequence[Static]) -> syntax.CelType:
        """The type of a call: the checker's, asked again where an argument was dyn to it but is known here."""
        if any(static.cel in (UNKNOWN, syntax.DYN) for static in statics):
            return UNKNOWN
        known = [(argument.type, static.cel) for argument, static in zip(node.arguments, statics, strict=True)]
        if not any("dyn" in str(of_checker) and str(of_checker) != str(of_data) for of_checker, of_data in known):
            return node.type
        names = [f"a{number}" for number in range(len(known))]
        types = {name: cel.Type(_signature(of_data)) for name, (_, of_data) in zip(names, known, strict=True)}
        env = cel.NewEnv(descriptor_pool=self._scope.messages.pool, variables=types)
        try:
            checked = wire.read(env.compile(_written(node, names)).serialize())
        except RUNTIME_ERRORS as error:
            message = self._scope.messages.readable(problems_of(error, "")[0].message)
            self.fail("SK306", node, f"`{syntax.text(node)}`: {message}", "Make the types match.")
            return UNKNOWN
        return syntax.decode(checked).type

    def _default(self, node: syntax.Call, facts: Facts) -> Static:
        first, fallback = node.arguments
        with self.tolerating():
            one = self.infer(first, facts)
        other = self.infer(fallback, facts)
        kinds = {one.kind, other.kind} - {"dyn", "null", "unknown"}
        if len(kinds) > 1:
            message = f"`{DEFAULT}` chooses between {one} and {other}"
            self._report("SK306", syntax.begin(first), message, f"Make `{syntax.text(fallback)}` the same type.")
        return either(replace(one, nullable=False, absent=None), other)

    def _compare(self, node: syntax.Call, facts: Facts) -> Static:
        for one, other in (node.arguments, node.arguments[::-1]):
            is_null = isinstance(other, syntax.Constant) and other.value is None
            static = self.infer(one, facts)
            if not (is_null and isinstance(one, syntax.Select)):
                self._demand(one, static, null=True)
        return Static(cel=BOOL)

    def _divide(self, node: syntax.Call, static: Static, facts: Facts) -> None:
        divisor = node.arguments[1]
        if static.cel.name == "double":
            return  # gives infinity or NaN
        written = syntax.text(divisor)
        if not (isinstance(divisor, syntax.Constant) and divisor.value != 0) and (NOT_ZERO, written) not in facts:
            remedy = f"Guard it, `{written} != 0 ? … : …`, or write `default(…, …)` around the division."
            self.fail("SK312", divisor, f"`{written}` may be zero", remedy)

    def _convert(self, node: syntax.Call, static: Static, facts: Facts) -> None:
        (argument,) = node.arguments
        if static.cel.name in _SURE[node.function] or _converts_text(node.function, static):
            return
        if isinstance(argument, syntax.Constant):
            self._evaluate(node, node)
            return
        written = syntax.text(argument)
        if (MATCHED, written) not in facts:
            remedy = f"Guard it, `{written}.matches('…') ? … : …`, or write `default({syntax.text(node)}, …)`."
            self.fail("SK313", node, f"not every {static} converts to {node.function}", remedy)

    def _evaluate(self, node: syntax.Call, literal: syntax.Call) -> None:
        """Whether a call of literals has a value: the runtime itself says so."""
        written = ", ".join(syntax.text(argument) for argument in literal.arguments)
        result = self._literals.expression(f"string({literal.function}({written})) == ''")({})
        if isinstance(result, EvaluationError):
            self._report("SK306", syntax.begin(node), f"`{syntax.text(node)}` fails: {result.message}", "Correct it.")

    # Loops ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, node: syntax.Loop, facts: Facts) -> Iterator[Facts]:
        """Walk what a loop goes over, then bind its variables; gives the facts that hold inside."""
        base = self.sure(node.range, facts)
        if base.cel.name not in ("list", "map", "unknown", "dyn"):
            written = syntax.text(node.range)
            self.fail("SK306", node.range, f"`{written}` is {base}, neither a list nor a map", "Take a list.")
        names = [name for name in (node.variable, node.variable2) if name]
        for name in names:
            if name in self._scope.variables:
                message = f"the loop variable `{name}` hides the variable of this name"
                self._report("SK314", syntax.begin(node.range), message, "Give the loop variable another name.")
        outer = self._loops
        initial = self.infer(node.initial, facts)
        self._loops = {**outer, node.variable: element_of(base), node.accumulator: initial}
        if node.variable2:
            self._loops[node.variable2] = element_of(base, second=True)
        try:
            yield without(facts, *names)
        finally:
            self._loops = outer


def _converts_text(function: str, static: Static) -> bool:
    """Whether the texts of a logical type are sure to convert."""
    logical = getattr(static.avro, "logical", None)
    if function == "timestamp":
        return logical in ("timestamp-millis", "timestamp-micros", "timestamp-nanos")
    return function == "double" and logical == "decimal"


def _signature(of_data: syntax.CelType) -> str:
    """A type as the runtime's type signatures write it."""
    if not of_data.parameters:
        return "null_type" if of_data.name == "null" else of_data.name
    return f"{of_data.name}<{', '.join(map(_signature, of_data.parameters))}>"


def _written(node: syntax.Call, names: Sequence[str]) -> str:
    """A call with its arguments replaced by names."""
    if node.function in _OPERATORS:
        return _OPERATORS[node.function]
    if node.function.startswith("_"):
        return f"{names[0]} {node.function.strip('_')} {names[1]}"
    return (
        f"{names[0]}.{node.function}({', '.join(names[1:])})" if node.method else f"{node.function}({', '.join(names)})"
    )


def _is_within(container: syntax.Node, index: syntax.Node) -> bool:
    """Whether a literal has what a literal index asks for."""
    if not isinstance(index, syntax.Constant):
        return False
    if isinstance(container, syntax.ListOf):
        return isinstance(index.value, int) and 0 <= index.value < len(container.elements)
    if isinstance(container, syntax.MapOf):
        return any(isinstance(key, syntax.Constant) and key.value == index.value for key, _ in container.entries)
    return False
