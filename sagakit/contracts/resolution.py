"""Data as a reader's schema has it: what Avro calls schema resolution, on data that is decoded already.

A record is decoded by the schema that it was written with. A definition, though, was checked against the schemas that
were published with it: where the writer is older, fields that the definition may rely on are missing, and have a
default in the reader's schema; and numbers may have become wider. (Fields that the reader does not know stay; nobody
reads them.)
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from sagakit.contracts import scalars
from sagakit.contracts.avro_types import MISSING, Array, EnumType, Fixed, Map, Node, Primitive, RecordType, Union
from sagakit.contracts.errors import SchemaError
from sagakit.contracts.scalars import MismatchError
from sagakit.core.values import Data

Resolve: TypeAlias = Callable[[Data], Data]
_Resolve: TypeAlias = Callable[[Any], Any]
_Plan: TypeAlias = list[tuple[str, _Resolve | None, Any]]


def compile_resolution(record: RecordType) -> Resolve | None:
    """A function that gives data as `record` has it: defaults filled in, integers made doubles where it says so.

    The data itself stays as it is. A field that is missing and has no default stays missing. None where no data can
    change: without defaults and doubles.

    Raises:
        SchemaError: a default does not fit its field.
    """
    plan = _Compiler().plan(record)
    return None if _is_trivial(plan) else partial(_record, plan)


def _is_trivial(plan: _Plan) -> bool:
    return all(resolve is None and default is MISSING for _, resolve, default in plan)


def default_value(node: Node, default: Any) -> Any:
    """A default (Avro JSON) in the form that data has.

    Raises:
        SchemaError: the default does not fit the type.
    """
    try:
        return _default(node, default)
    except MismatchError as error:
        raise SchemaError(f"the default {default!r} does not fit its type: {error.reason}") from error


def _default(node: Node, default: Any) -> Any:
    match node:
        case Primitive():
            raw, read = scalars.default_datum(node, default), scalars.read_primitive(node)
            return raw if read is None else read(raw)
        case Fixed():
            return scalars.read_fixed(node)(scalars.default_datum(node, default))
        case EnumType():
            return scalars.default_datum(node, default)
        case Array() if isinstance(default, list):
            return [_default(node.items, item) for item in default]
        case Map() if isinstance(default, dict):
            return {key: _default(node.values, value) for key, value in default.items()}
        case RecordType() if isinstance(default, dict):
            return {field.name: _default(field.type, default.get(field.name, field.default)) for field in node.fields}
        case Union():
            for branch in node.branches:
                try:
                    return _default(branch, default)
                except MismatchError:
                    continue  # another branch may take it
    raise MismatchError("it fits no branch")


class _Compiler:
    def __init__(self) -> None:
        self._plans: dict[str, _Plan] = {}
        self._unfinished: set[str] = set()

    def plan(self, record: RecordType) -> _Plan:
        if record.name not in self._plans:
            plan = self._plans[record.name] = []
            self._unfinished.add(record.name)
            for field in record.fields:
                default = MISSING if field.default is MISSING else default_value(field.type, field.default)
                plan.append((field.name, self._node(field.type), default))
            self._unfinished.remove(record.name)
        return self._plans[record.name]

    def _node(self, node: Node) -> _Resolve | None:
        """How a value is resolved; None for one that stays as it is."""
        match node:
            case Primitive(kind="float" | "double"):
                return _double
            case RecordType():
                plan = self.plan(node)
                # Of a record within itself it is not known yet what its plan comes to.
                unfinished = node.name in self._unfinished
                return partial(_record, plan) if unfinished or not _is_trivial(plan) else None
            case Array():
                items = self._node(node.items)
                return None if items is None else partial(_array, items)
            case Map():
                values = self._node(node.values)
                return None if values is None else partial(_map, values)
            case Union() if node.optional is not None:
                other = self._node(node.optional)
                return None if other is None else partial(_optional, other)
        return None  # the branch of a general union is not known any more


def _record(plan: _Plan, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    resolved = dict(value)
    for name, resolve, default in plan:
        if name not in resolved:
            if default is not MISSING:
                resolved[name] = default
        elif resolve is not None:
            resolved[name] = resolve(resolved[name])
    return resolved


def _double(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _array(items: _Resolve, value: Any) -> Any:
    return [items(item) for item in value] if isinstance(value, list) else value


def _map(values: _Resolve, value: Any) -> Any:
    return {key: values(one) for key, one in value.items()} if isinstance(value, Mapping) else value


def _optional(other: _Resolve, value: Any) -> Any:
    return None if value is None else other(value)
