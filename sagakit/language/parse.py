"""Text or data to a `Document`, with every error at once and each at its place."""

import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sagakit.language.document import Document
from sagakit.language.findings import Finding, ordered
from sagakit.language.source import Path, Source, dotted, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A document with the text that it was read from."""

    document: Document
    source: Source


_MISSING: Final = {
    "timeout": "Say how long a reply may take: `timeout: 5s`.",
    "owner": "Say who is paged: `owner: team-orders`.",
    "version": "Say which version this is: `version: 1`.",
    "key": "Say what identifies a saga: `key: start.order_id`.",
    "attempts": "Say how many commands are sent at most, the first included: `attempts: 5`.",
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def meant(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: what it was probably meant to be, or what there is."""
    choices = sorted(known)
    close = nearest(name, choices)
    if close is not None:
        return f"Did you mean `{close}`?"
    if not choices:
        return "There are none here."
    shown = ", ".join(f"`{choice}`" for choice in choices[:12])
    return f"There are {shown}{' and more' if len(choices) > 12 else ''}."


def parse(text: str, file: str = "definition.yaml") -> Parsed | list[Finding]:
    """Read a definition's YAML 1.2 text; what is wrong with it comes as findings, all at once and in order."""
    loaded = load(text, file)
    if any(finding.code == "SK101" for finding in loaded.findings):
        return ordered(loaded.findings)
    result = parse_data(loaded.data, loaded.source)
    if isinstance(result, list):
        return ordered([*loaded.findings, *result])
    return ordered(loaded.findings) if loaded.findings else result


def parse_data(data: object, source: Source) -> Parsed | list[Finding]:
    """Check plain data, such as the builder's or a canonical form."""
    if not isinstance(data, Mapping):
        return [source.finding("SK105", (), "a definition is a mapping", "Begin with `saga: <name>`.")]
    try:
        return Parsed(document=Document.model_validate(data), source=source)
    except ValidationError as error:
        details = error.errors(include_url=False)
        return ordered(_finding(detail, source) for detail in details if not _repeated(detail, details))


def _repeated(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Whether another error already says that the name at this place is wrong."""
    return detail["loc"][-1:] == ("[key]",) and any(
        other["loc"] == detail["loc"][:-1] and other["type"] == "extra_forbidden" for other in details
    )


def _finding(detail: ErrorDetails, source: Source) -> Finding:
    path: Path = tuple(part for part in detail["loc"] if part != "[key]")
    key = detail["loc"][-1:] == ("[key]",)
    name, kind = str(path[-1]) if path else "", detail["type"]
    where = dotted(path[:-1])
    inside = f" in `{where}`" if where else ""
    if kind == "extra_forbidden":
        remedy = meant(name, _keys_at(path[:-1]))
        return source.finding("SK103", path, f"there is no key `{name}`{inside}", remedy, key=True)
    if kind == "missing":
        remedy = _MISSING.get(name, f"Add `{name}: …`.")
        return source.finding("SK104", path[:-1], f"the key `{name}` is missing{inside}", remedy, key=True)
    if kind == "string_pattern_mismatch":
        pattern = detail.get("ctx", {}).get("pattern", "")
        message = f"{detail['input']!r} cannot be `{name}`"
        return source.finding("SK106", path, message, f"It must match {pattern}.", key=key)
    if kind == "value_error":
        message = str(detail["ctx"]["error"]) if "ctx" in detail else detail["msg"]
        what, _, remedy = message.partition(": ")
        return source.finding("SK105", path, f"`{name}`: {what}", f"{remedy[:1].upper()}{remedy[1:]}.", key=key)
    if kind == "literal_error":
        expected = detail.get("ctx", {}).get("expected", "")
        return source.finding("SK105", path, f"`{name}` cannot be {detail['input']!r}", f"It is one of {expected}.")
    reason = (detail["msg"][0].lower() + detail["msg"][1:]).replace("tuple", "list").replace("dictionary", "mapping")
    return source.finding(
        "SK105", path, f"`{name or 'the definition'}`: {reason}", f"Correct `{dotted(path)}`.", key=key
    )


def _keys_at(path: Path) -> list[str]:
    """The keys that a mapping at `path` may have."""
    model: object = Document
    for part in path:
        model = _inner(model, part)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [field.alias or name for name, field in model.model_fields.items()]
    return []


def _inner(model: object, part: str | int) -> object:
    """The type of what stands under the key `part` of `model`, optional types unwrapped."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        found: object = next(
            (field.annotation for name, field in model.model_fields.items() if part in (name, field.alias)), None
        )
    elif get_origin(model) is dict:
        found = get_args(model)[1]
    else:
        return None
    if get_origin(found) in (Union, types.UnionType):
        found = next((choice for choice in get_args(found) if choice is not type(None)), None)
    return found
