"""What the saga language adds to CEL, turned into plain CEL.

Data is JSON: a field that has no value is null there, while CEL (made for protobuf) knows only fields that are not set.
So that one guard serves both:

- `has(a.b)` is true if `b` is there *and not null*;
- `a.b == null` is true, and `a.b != null` false, also if `b` is not there;
- `default(x, y)` is `x`, or `y` where `x` is null or has no value (a missing field or key, an index out of range, a
  division by zero, a text that cannot be converted).

The parsed expression is rewritten, not its text, so columns stay right.
"""

from typing import Any, Final

from sagakit.language.wire import ONEOF, Checked

DEFAULT: Final = "default"
_IS_NOT_FALSE: Final = "@not_strictly_false"
"""CEL's own helper of loops, and its only function that survives an error of its argument: false only for `false`."""


def desugar(checked: Checked) -> None:
    """Rewrite an expression in place."""
    _Desugar(checked.expr).rewrite(checked.expr)


class _Desugar:
    def __init__(self, root: Any) -> None:
        self._id = _largest(root)
        self._new = type(root)

    def rewrite(self, expr: Any) -> None:
        for child in _children(expr):
            self.rewrite(child)
        kind = expr.WhichOneof(ONEOF)
        if kind == "select" and expr.select.test_only:
            expr.CopyFrom(self._is_there(expr, positive=True))
        elif kind == "call" and expr.call.function in ("_==_", "_!=_"):
            left, right = expr.call.args
            for one, other in ((left, right), (right, left)):
                if one.const.WhichOneof(ONEOF) == "null" and _is_field(other):
                    expr.CopyFrom(self._is_there(other, positive=expr.call.function == "_!=_"))
                    break
        elif kind == "call" and expr.call.function == DEFAULT:
            expr.CopyFrom(self._default(*expr.call.args))

    def _is_there(self, select: Any, *, positive: bool) -> Any:
        """`has(a.b) && a.b != null`, or its opposite."""
        test, value = self._copy(select), self._copy(select)
        test.select.test_only, value.select.test_only = True, False
        there = self._call("_&&_", test, self._call("_!=_", value, self._null()))
        return there if positive else self._call("!_", there)

    def _default(self, value: Any, fallback: Any) -> Any:
        """`value` fails or is null ? `fallback` : `value`; `[value] == []` is false unless `value` fails."""
        compared = self._call("_==_", self._list(self._copy(value)), self._list())
        fails = self._call(_IS_NOT_FALSE, compared)
        is_null = self._call("_==_", self._copy(value), self._null())
        return self._call("_?_:_", self._call("_||_", fails, is_null), fallback, value)

    def _fresh(self) -> Any:
        self._id += 1
        return self._new(id=self._id)

    def _copy(self, expr: Any) -> Any:
        copy = self._new()
        copy.CopyFrom(expr)
        return copy

    def _call(self, function: str, *arguments: Any) -> Any:
        expr = self._fresh()
        expr.call.function = function
        expr.call.args.extend(arguments)
        return expr

    def _null(self) -> Any:
        expr = self._fresh()
        expr.const.null = 0
        return expr

    def _list(self, *elements: Any) -> Any:
        expr = self._fresh()
        expr.list.SetInParent()
        expr.list.elements.extend(elements)
        return expr


def _is_field(expr: Any) -> bool:
    return expr.WhichOneof(ONEOF) == "select" and not expr.select.test_only


def _children(expr: Any) -> list[Any]:
    match expr.WhichOneof(ONEOF):
        case "select":
            return [expr.select.operand]
        case "call":
            return [*([expr.call.target] if expr.call.HasField("target") else []), *expr.call.args]
        case "list":
            return list(expr.list.elements)
        case "struct":
            entries = expr.struct.entries
            return [part for e in entries for part in ([e.map_key] if e.HasField("map_key") else []) + [e.value]]
        case "comprehension":
            loop = expr.comprehension
            return [loop.iter_range, loop.accu_init, loop.loop_condition, loop.loop_step, loop.result]
        case _:
            return []


def _largest(expr: Any) -> int:
    entries = [entry.id for entry in expr.struct.entries] if expr.WhichOneof(ONEOF) == "struct" else []
    largest: int = max([expr.id, *entries, *map(_largest, _children(expr))])
    return largest
