"""Histories as JSON that people can read and compare: for those kept for ever, and for a failing seed's report.

This is not the form of the backlog, which is Avro. Each record names its kind under `is`; what has its default is left
out.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from sagakit.core import actions, events, state, transitions, values
from sagakit.core.address import Address
from sagakit.core.transitions import Transition

_IS: Final = "is"
_MODULES: Final = (actions, events, state, transitions, values)


def dump(history: Iterable[Transition]) -> str:
    """A history as JSON, one transition a line."""
    return "[\n" + ",\n".join(json.dumps(to_json(fact), ensure_ascii=False) for fact in history) + "\n]\n"


def load(text: str) -> tuple[Transition, ...]:
    """The history that `dump` wrote."""
    return tuple(from_json(Transition, fact) for fact in json.loads(text))


def to_json(value: Any) -> Any:
    """The JSON form of any value of the core."""
    if is_dataclass(value) and not isinstance(value, type):
        told = {field.name: getattr(value, field.name) for field in fields(value)}
        kept = {field.name: to_json(told[field.name]) for field in fields(value) if told[field.name] != field.default}
        return {_IS: type(value).__name__, **kept}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_json(entry) for entry in value]
    return value


def from_json(hint: Any, data: Any) -> Any:
    """The value of the type `hint` whose JSON form is `data`.

    Raises:
        ValueError: when `data` is not the JSON form of any such value.
    """
    if data is None or hint == values.Data:
        return data
    if isinstance(data, Mapping) and _IS in data:
        return _record(data)
    if get_origin(hint) in (Union, UnionType):
        hint = next((option for option in get_args(hint) if _is_of(option)), hint)
    if hint is Address:
        return Address.parse(data)
    if hint is bytes:
        return b64decode(data, validate=True)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(data)
    if get_origin(hint) is tuple:
        return tuple(from_json(get_args(hint)[0], entry) for entry in data)
    if get_origin(hint) is not None and get_args(hint)[:1] == (Address,):
        return {Address.parse(key): from_json(get_args(hint)[1], entry) for key, entry in data.items()}
    return data


def _is_of(option: Any) -> bool:
    """Whether a type of a union needs more than plain JSON; of those that stand together here, at most one does."""
    return (
        option in (Address, bytes)
        or get_origin(option) is tuple
        or (isinstance(option, type) and issubclass(option, Enum))
    )


@cache
def _fields(name: str) -> tuple[type, Mapping[str, Any]]:
    for module in _MODULES:
        kind = vars(module).get(name)
        if is_dataclass(kind) and isinstance(kind, type):
            return kind, {field.name: field.type for field in fields(kind)}
    raise ValueError(f"{name!r} is no record of the core")


def _record(data: Mapping[str, Any]) -> Any:
    kind, hints = _fields(data[_IS])
    known = {field.name: field for field in fields(kind)}
    given = {name: from_json(hints[name], entry) for name, entry in data.items() if name != _IS}
    missing = [name for name, field in known.items() if name not in given and field.default is MISSING]
    if missing:
        raise ValueError(f"{data[_IS]} lacks {', '.join(missing)}")
    return kind(**given)
