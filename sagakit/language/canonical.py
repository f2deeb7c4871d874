"""The canonical form of a definition: equal for definitions that mean the same, whatever their layout.

Defaults are applied, keys, `after` and `rejects` sorted, comments and white space gone. What is left is hashed,
published and compiled; the text that people wrote is published beside it.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from sagakit.core.definition import Definition
from sagakit.language.compile import InvalidDefinitionError, build, records_of
from sagakit.language.document import Compensation, Document, EndEvent, Fields, Retry, Step, duration_text
from sagakit.language.expressions import json_form
from sagakit.language.parse import parse_data
from sagakit.language.source import Source
from sagakit.language.types import Schemas

_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<string>[bB]?[rR]?[bB]?(?:\"\"\"|'''|"|'))
  | (?P<number>(?:0x[0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[uU]?)
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*|`[^`]*`)
  | (?P<operator>&&|\|\||==|!=|<=|>=|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BINARY: Final = frozenset({"&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "*", "/", "%", "?"})
_BEFORE_UNARY: Final = _BINARY | {"", "(", "[", "{", ",", ":", "-", "!", "in"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What is published: enough to compile the definition, and to encode its records, without a registry.

    `schemas` holds the self-contained Avro schema of every record that the definition uses, by full name; `hash` is the
    SHA-256 of the canonical form, in hexadecimal.
    """

    name: str
    version: int
    canonical: str
    hash: str
    source: str
    schemas: Mapping[str, str]


def canonical_form(document: Document) -> str:
    """The canonical JSON of a definition."""
    return json.dumps(_document(document), separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)


def hash_of(canonical: str) -> str:
    """The hash that two definitions share if they mean the same."""
    return sha256(canonical.encode()).hexdigest()


def bundle(document: Document, source: str, schemas: Mapping[str, str]) -> Bundle:
    """Put together what is published of a definition that lint has passed.

    Raises:
        KeyError: a record of the definition has no schema.
    """
    canonical = canonical_form(document)
    return Bundle(
        name=document.saga,
        version=document.version,
        canonical=canonical,
        hash=hash_of(canonical),
        source=source,
        schemas={name: schemas[name] for name in sorted(records_of(document))},
    )


def compile_bundle(canonical: str, schemas: Mapping[str, str]) -> Definition:
    """Compile a published definition: a pure function of what was published.

    Rules of lint are not applied again, so a rule that is added later never stops a running saga.

    Raises:
        InvalidDefinitionError: if it cannot be compiled.
    """
    try:
        data = json.loads(canonical)
        parsed = parse_data(data, Source(file="canonical form"))
        if isinstance(parsed, list):
            raise InvalidDefinitionError("; ".join(str(finding) for finding in parsed))
        return build(parsed.document, Schemas(schemas))
    except ValueError as error:
        raise InvalidDefinitionError(f"the canonical form is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidDefinitionError("the definition is nested too deeply") from error


def _document(document: Document) -> dict[str, Any]:
    return {
        "saga": document.saga,
        "version": document.version,
        "owner": document.owner,
        "impact": document.impact,
        "start": document.start,
        "on": document.on,
        "key": expression_form(document.key),
        "again": document.again,
        "dedupe": duration_text(document.dedupe),
        "deadline": None if document.deadline is None else duration_text(document.deadline),
        "steps": {name: _step(step) for name, step in document.steps.items()},
        "end": {
            "completed": _event(document.end.completed, document.on),
            "compensated": _event(document.end.compensated, document.on),
        },
    }


def _step(step: Step) -> dict[str, Any]:
    budget = step.budget
    return {
        "service": step.service,
        "command": step.command,
        "with": _fields(step.with_),
        "reply": step.reply,
        "kind": step.kind,
        "after": sorted(set(step.after)),
        "when": None if step.when is None else expression_form(step.when),
        "rejects": sorted(set(step.rejects)),
        "budget": None
        if budget is None
        else {
            "p99": None if budget.p99 is None else duration_text(budget.p99),
            "failures": None if budget.failures is None else f"{budget.failures * 100:.10g}%",
        },
        "timeout": duration_text(step.timeout),
        "retry": _retry(step.retry_policy),
        "compensate": None if step.compensate is None else _compensation(step, step.compensate),
    }


def _compensation(step: Step, compensation: Compensation) -> dict[str, Any]:
    return {
        "service": compensation.service or step.service,
        "command": compensation.command,
        "with": _fields(compensation.with_),
        "reply": compensation.reply,
        "timeout": duration_text(compensation.timeout or step.timeout),
        "retry": _retry(compensation.retry),
    }


def _retry(retry: Retry) -> dict[str, Any]:
    return {"attempts": retry.attempts, "backoff": duration_text(retry.backoff), "max": duration_text(retry.max)}


def _event(event: EndEvent | None, trigger: str | None) -> dict[str, Any] | None:
    if event is None:
        return None
    return {"publish": event.publish, "to": event.to or trigger, "with": _fields(event.with_)}


def _fields(fields: Fields) -> dict[str, Any]:
    return {name: _value(value) for name, value in fields.items()}


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return expression_form(value)
    if isinstance(value, Mapping):
        return {str(name): _value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_value(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return f'"{json_form(value)}"'
    return value


def expression_form(text: str) -> str:
    """An expression in one layout: single spaces where CEL's own style has them, comments gone, strings untouched."""
    pieces: list[str] = []
    previous, ternaries = "", [0]
    for kind, token in _tokens(text):
        if token in ("(", "[", "{"):
            ternaries.append(0)
        elif token in (")", "]", "}") and len(ternaries) > 1:
            ternaries.pop()
        binary = (token in _BINARY or token == "in" or (token == "-" and previous not in _BEFORE_UNARY)) and bool(
            pieces
        )
        if token == "?":
            ternaries[-1] += 1
        elif token == ":" and ternaries[-1]:
            ternaries[-1] -= 1
            binary = True
        if kind == "operator" and not binary:
            pieces.append(f"{token} " if token in (",", ":") else token)
        elif binary:
            pieces.append(f" {token} ")
        else:
            # Two words stand beside each other only in broken text; it stays broken.
            glued = pieces and pieces[-1][-1:].isalnum()
            pieces.append(f" {token}" if glued else token)
        previous = token
    return "".join(pieces).strip()


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None, "the last alternative takes any character"
        kind, token, at = str(match.lastgroup), match[0], match.end()
        if kind == "string":
            at = _string_end(text, match)
            token = text[match.start() : at]
        if kind != "space":
            found.append((kind, token))
    return found


def _string_end(text: str, opening: re.Match[str]) -> int:
    """Where a string literal ends that begins with `opening`; the end of the text if it is not closed."""
    prefix = opening[0].rstrip("\"'")
    quote = opening[0][len(prefix) :]
    raw = "r" in prefix.lower()
    at = opening.end()
    while at < len(text) and not text.startswith(quote, at):
        at += 2 if text[at] == "\\" and not raw else 1
    return min(at + len(quote), len(text))
