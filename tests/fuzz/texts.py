"""Schemas and definitions made wrong: each has to be refused with a finding, or has to work; neither ever raises."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts.avro_types import parse_record
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import SchemaError
from sagakit.language.canonical import bundle, compile_bundle
from sagakit.language.compile import InvalidDefinitionError
from sagakit.language.findings import Severity
from sagakit.language.lint import lint
from sagakit.language.parse import parse
from sagakit.ports.registry import UnknownSchemaError
from tests.simulation import shop

_WORDS: Final = (
    "record",
    "string",
    "long",
    "null",
    "array",
    "map",
    "enum",
    "fixed",
    "bytes",
    "decimal",
    "timestamp-millis",
    "sim.Placed",
    "sim.Do",
    "start",
    "reserve",
    "failure",
    "pivot",
    "after-compensated",
    "1",
    "-1",
    "[]",
    "{}",
    "~",
    "0s",
    "99999999d",
    "start.order_id",
    "start.amount / 0",
    "start.note[0]",
    'id("x")',
    "1 +",
    "\ud800",
    "\x00",
    "ä",
    "*a",
    "&a",
    "!!python/object:os.system",
    "<<: *x",
)
_LINES: Final = tuple(line for text in shop.TEXTS.values() for line in text.splitlines() if line.strip())


def _cut(random: Random, text: str) -> str:
    at = random.randrange(len(text) + 1)
    return text[:at] + text[min(len(text), at + random.choice((1, 1, 3, 20))) :]


def _put(random: Random, text: str) -> str:
    at = random.randrange(len(text) + 1)
    return (
        text[:at]
        + random.choice(("", " ", "\n", "  ", ": ", "- ", "{", "}", "[", "]", '"', random.choice(_WORDS)))
        + text[at:]
    )


def _replace_word(random: Random, text: str) -> str:
    words = text.split()
    return text.replace(random.choice(words), random.choice(_WORDS), random.choice((1, -1))) if words else text


def _repeat_line(random: Random, text: str) -> str:
    lines = text.split("\n")
    lines.insert(random.randrange(len(lines) + 1), random.choice((*lines, *_LINES)))
    return "\n".join(lines)


def _drop_line(random: Random, text: str) -> str:
    lines = text.split("\n")
    del lines[random.randrange(len(lines))]
    return "\n".join(lines)


def _indent(random: Random, text: str) -> str:
    lines = text.split("\n")
    at = random.randrange(len(lines))
    lines[at] = " " * random.randint(1, 4) + lines[at]
    return "\n".join(lines)


_TEXT_MUTATIONS: Final[Sequence[Callable[[Random, str], str]]] = (
    _cut,
    _put,
    _replace_word,
    _replace_word,
    _repeat_line,
    _drop_line,
    _indent,
)


def mutated_text(random: Random, text: str) -> str:
    """A text with some things wrong with it."""
    for _ in range(random.choice((1, 1, 2, 4))):
        text = random.choice(_TEXT_MUTATIONS)(random, text)
    return text


def definitions(random: Random, count: int) -> Counter[str]:
    """Lint wrong definitions; those without a finding have to compile from what would be published. What came of them.

    Raises:
        Exception: whatever escapes is a bug.
    """
    found: Counter[str] = Counter()
    for _ in range(count):
        text = mutated_text(random, random.choice(tuple(shop.TEXTS.values())))
        parsed = parse(text)
        if isinstance(parsed, list):
            assert parsed, "neither a document nor a finding"
            found["not parsed"] += 1
            continue
        findings = lint(parsed.document, shop.SCHEMAS, parsed.source)
        if any(one.severity is Severity.ERROR for one in findings):
            found["refused"] += 1
            continue
        published = bundle(parsed.document, text, shop.SCHEMAS)
        compile_bundle(published.canonical, published.schemas)
        found["accepted"] += 1
        try:
            compile_bundle(mutated_text(random, published.canonical), published.schemas)
            found["another canonical form"] += 1
        except (InvalidDefinitionError, SchemaError):
            found["no canonical form"] += 1
    return found


def schemas(random: Random, count: int) -> Counter[str]:
    """Compile wrong schemas, register those that compile, and read noise with them. What came of them.

    Raises:
        Exception: whatever escapes is a bug.
    """
    found: Counter[str] = Counter()
    for _ in range(count):
        text = mutated_text(random, random.choice(tuple(shop.SCHEMAS.values())))
        if random.random() < 0.5:
            text = json.dumps(_mutated_json(random, json.loads(random.choice(tuple(shop.SCHEMAS.values())))))
        registry = MemoryRegistry()
        try:
            registry.register(parse_record(text).name, text)
            AvroCodec(registry).compile_schema(text)
            found["accepted"] += 1
        except (SchemaError, UnknownSchemaError):
            found["refused"] += 1
    return found


def _mutated_json(random: Random, value: Any) -> Any:
    chance = random.random()
    if chance < 0.08:
        return random.choice((None, True, -1, 2**70, 1.5, "", [], {}, *_WORDS[:14]))
    if isinstance(value, dict):
        changed = {name: _mutated_json(random, one) for name, one in value.items()}
        if chance < 0.2:
            changed[
                random.choice(("logicalType", "default", "doc", "aliases", "order", "size", "symbols", "scale"))
            ] = random.choice((None, 1, "decimal", [], ["a", "a"], {"x": 1}))
        return changed
    if isinstance(value, list):
        return [_mutated_json(random, one) for one in value] * random.choice((1, 1, 1, 2))
    return value
