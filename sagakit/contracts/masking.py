"""The one function through which business data is shown: histories, logs, errors, dead letters, views.

A field whose Avro schema says `"sagakit.mask": true` is never shown, nor what lies in it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

from sagakit.contracts.avro_types import NULL, Array, Map, Node, RecordType, Union
from sagakit.core.values import Data, Value

MASKED: Final = "***"
"""What is shown in place of a masked value; null stays null, so that one sees what was given."""

_Mask: TypeAlias = Callable[[Any], Any]


def mask(data: Data, record: RecordType) -> dict[str, Value]:
    """A copy of `data` in which every masked field of `record` shows `***`.

    Fields that the schema does not know are masked too: what another version of it would say of them is unknown. Data
    may lack fields (kept fields of a reply, for example).
    """
    masked: dict[str, Value] = compile_mask(record)(data)
    return masked


def compile_mask(record: RecordType) -> Callable[[Data], dict[str, Value]]:
    """`mask` for one record type, compiled once; the function may be kept."""
    compiler = _Compiler()
    return partial(_mask_record, compiler.fields(record))


def _hidden(value: Any) -> Any:
    return None if value is None else MASKED


class _Compiler:
    def __init__(self) -> None:
        self._records: dict[str, dict[str, _Mask | None]] = {}

    def fields(self, record: RecordType) -> dict[str, _Mask | None]:
        """How each field is shown; None for one that is shown as it is."""
        if record.name not in self._records:
            fields = self._records[record.name] = {}
            for field in record.fields:
                fields[field.name] = _hidden if field.masked else self._node(field.type)
        return self._records[record.name]

    def _node(self, node: Node) -> _Mask | None:
        match node:
            case RecordType():
                return partial(_mask_record, self.fields(node))
            case Array():
                items = self._node(node.items)
                return None if items is None else partial(_mask_array, items)
            case Map():
                values = self._node(node.values)
                return None if values is None else partial(_mask_map, values)
            case Union():
                return self._union(node)
        return None

    def _union(self, node: Union) -> _Mask | None:
        """Values are not tagged with their branch: the masks of all branches are laid over each other."""
        masks = [one for branch in node.branches if branch != NULL and (one := self._node(branch)) is not None]
        if not masks:
            return None
        return masks[0] if len(masks) == 1 else partial(_mask_any, tuple(masks))


def _mask_record(fields: Mapping[str, _Mask | None], value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    shown: dict[str, Any] = {}
    for name, one in value.items():
        if name not in fields:
            shown[name] = _hidden(one)
        else:
            show = fields[name]
            shown[name] = one if show is None else show(one)
    return shown


def _mask_array(items: _Mask, value: Any) -> Any:
    return [items(item) for item in value] if isinstance(value, list) else value


def _mask_map(values: _Mask, value: Any) -> Any:
    return {key: values(one) for key, one in value.items()} if isinstance(value, Mapping) else value


def _mask_any(masks: tuple[_Mask, ...], value: Any) -> Any:
    for one in masks:
        value = one(value)
    return value
