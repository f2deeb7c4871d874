"""What lint lets through has a value at run time, whatever data comes: on random expressions and random data.

Not promised by lint, and so excused here: arithmetic that leaves 64 bits, and doubles that are no numbers.
"""

import json
from random import Random
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sagakit.contracts.avro_types import Array, EnumType, Fixed, Map, Node, Primitive, RecordType, Union, parse_record
from sagakit.contracts.writing import compile_writer
from sagakit.core.values import EvaluationError
from sagakit.language.expressions import Compiler
from sagakit.language.place import Place
from sagakit.language.scope import Scopes
from sagakit.language.source import Source
from sagakit.language.types import Schemas
from tests.unit.language.shop import SCHEMAS, document, record

_EXCUSED = ("overflow", "out of range")
_ORDER = parse_record(SCHEMAS["test.Order"])
_RESERVED = parse_record(SCHEMAS["test.Reserved"])
_LOGICAL: dict[str, list[Any]] = {
    "decimal": ["0.00", "-12.50"],
    "uuid": ["7f0c3c1e-54dd-4c5c-a2a4-52c0a2ff9a39"],
    "date": ["2026-11-23"],
    "time-millis": ["14:05:09.123"],
    "time-micros": ["14:05:09.123"],
    "timestamp-millis": ["2026-11-23T14:05:09.123Z"],
    "timestamp-micros": ["2026-11-23T14:05:09.123456Z"],
    "timestamp-nanos": ["2026-11-23T14:05:09.123456789Z"],
    "local-timestamp-millis": ["2026-11-23T14:05:09.123"],
    "duration": ["P0M1DT2.000S"],
}
_PLAIN: dict[str, list[Any]] = {
    "null": [None],
    "boolean": [True, False],
    "int": [-1, 0, 1, 2],
    "long": [-(2**63), -1, 0, 1, 2**63 - 1],
    "float": [0.0, 1.5, -1e30],
    "double": [0.0, 1.5, 1e300],
    "bytes": ["AAEC"],
    "string": ["", "a", "RED", "12"],
}


def _sample(node: Node, random: Random, depth: int = 0) -> Any:
    """A JSON form of a value of an Avro type; the smaller the deeper."""
    match node:
        case Primitive():
            return random.choice(_LOGICAL[node.logical] if node.logical else _PLAIN[node.kind])
        case Fixed():
            return random.choice(_LOGICAL[node.logical]) if node.logical else "AAECAw=="
        case EnumType():
            return random.choice(node.symbols)
        case Array():
            return [_sample(node.items, random, depth + 1) for _ in range(random.randrange(3))]
        case Map():
            return {key: _sample(node.values, random, depth + 1) for key in ("a", "b") if random.random() < 0.5}
        case Union():
            branches = node.branches[:1] if depth > 3 else node.branches
            return _sample(random.choice(branches), random, depth + 1)
        case RecordType():
            return {field.name: _sample(field.type, random, depth + 1) for field in node.fields}


_TEXT_PATHS = [
    "start.text",
    "start.o_text",
    "start.colour",
    "start.o_colour",
    "start.price",
    "start.id",
    "start.millis",
    "start.span",
    "start.line.sku",
    "start.line.note",
    "start.o_line.sku",
    "start.o_line.note",
    "start.parent.text",
    "start.lines[0].note",
    "start.tags.a",
    "start.tags['a']",
    "start.o_tags.a",
    "start.shelves['a'][0].sku",
    "start.gaps[0]",
    "reserve.place",
    "reserve.reservation",
    "start.either",
]
_INT_PATHS = [
    "start.small",
    "start.large",
    "start.o_small",
    "start.line.quantity",
    "start.o_line.quantity",
    "start.grid[0][0]",
    "start.numbers[1]",
    "start.o_numbers[0]",
    "reserve.count",
    "start.lines[0].quantity",
    "start.parent.small",
    "start.either",
]
_ANY: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(_TEXT, _INT, _BOOL, _LIST, st.sampled_from(["null", "{}", "2.5", "start.line", "start"]))
)


def _made(template: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda made: template.format(*made))


def _typed(own: st.SearchStrategy[str], paths: list[str], simple: list[str]) -> st.SearchStrategy[str]:
    """Expressions that are of one type, most of them, with guards that fit, some of them."""
    path = st.sampled_from(paths)
    return st.one_of(
        path,
        st.sampled_from(simple),
        _made("({0} ? {1} : {2})", _BOOL, own, own),
        _made("default({0}, {1})", st.one_of(own, _ANY), own),
        _made("({0} != null ? {0} : {1})", path, own),
        _made("({0} == null ? {1} : {0})", path, own),
        _made("(has({0}) ? {1} : {2})", path, own, own),
        _made("(type({0}) == {1} ? {0} : {2})", path, st.sampled_from(["string", "int"]), own),
        _made("(size({0}) > 0 ? {0}[0] : {1})", _LIST, own),
        _made("{{'a': {0}}}.a", own),
        _made("[{0}, {1}][1]", own, own),
    )


_TEXT: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        _typed(_TEXT, _TEXT_PATHS, ["'a'", "'RED'", "''"]),
        _made("({0} + {1})", _TEXT, _TEXT),
        _made("string({0})", _ANY),
    )
)
_INT: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        _typed(_INT, _INT_PATHS, ["0", "1", "-2"]),
        _made("({0} {1} {2})", _INT, st.sampled_from(["+", "-", "/", "%"]), _INT),
        _made("({1} != 0 ? {0} / {1} : 0)", _INT, _INT),
        _made("({0}).size()", st.one_of(_TEXT, _LIST)),
        _made("int({0})", _ANY),
    )
)
_BOOL: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(["start.flag", "true", "start.o_flag", "has(start.o_text)", "has(reserve.count)"]),
        _made("({0} {1} {2})", _INT, st.sampled_from(["<", "==", "!=", ">="]), _INT),
        _made("({0} {1} {2})", _BOOL, st.sampled_from(["&&", "||"]), _BOOL),
        _made("!({0})", _BOOL),
        _made("({0} in {1})", _TEXT, _LIST),
        _made("({0}).exists(x, {1})", _LIST, _BOOL),
        _made("{0} == null", st.one_of(st.sampled_from(_TEXT_PATHS), _ANY)),
    )
)
_LIST: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(
            ["start.gaps", "start.o_gaps", "start.lines.map(l, l.sku)", "start.lines.map(l, l.note)", "[]"]
        ),
        st.sampled_from(["start.lines.map(l, default(l.note, 'x'))", "start.lines.map(l, has(l.note), l.note)"]),
        st.sampled_from(["start.lines.filter(l, l.note == null || l.note.size() > 0).map(l, l.note)"]),
        _made("[{0}, {1}]", _TEXT, st.one_of(_TEXT, _ANY)),
        _made("({0} ? {1} : {2})", _BOOL, _LIST, _LIST),
        _made("default({0}, {1})", _ANY, _LIST),
        _made("({0}).filter(x, {1})", _LIST, _BOOL),
    )
)
_MAP = st.one_of(_made("{{'a': {0}, 'b': {1}}}", _ANY, _ANY), st.sampled_from(["start.tags", "start.o_tags"]))
_TARGETS: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(_TEXT, st.sampled_from(["string", ["null", "string"], ["string", "long"]])),
    st.tuples(_INT, st.sampled_from(["long", ["null", "long"]])),
    st.tuples(_BOOL, st.just("boolean")),
    st.tuples(
        _LIST, st.sampled_from(["string", ["null", "string"]]).map(lambda items: {"type": "array", "items": items})
    ),
    st.tuples(_MAP, st.just({"type": "map", "values": ["null", "string", "long", "boolean"]})),
)


_DOCUMENT = document({"steps.reserve.when": "start.flag"})
_SCOPE = Scopes(_DOCUMENT, Schemas(SCHEMAS)).forward("ship")
_COMPILER = Compiler(["start", "failure", *_DOCUMENT.steps])


def _let_through(text: str, schema: RecordType) -> bool:
    place = Place(_SCOPE, Source(file="test"), Compiler(()))
    place.fields(("with",), {"field": text}, schema)
    return not place.findings


def test_what_lint_lets_through_has_a_value_that_can_be_encoded() -> None:
    passed: list[str] = []

    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(target=_TARGETS, seed=st.integers(0, 2**32))
    def check(target: tuple[str, Any], seed: int) -> None:
        text, kind = target
        assume(len(text) < 300)
        schema = parse_record(record("Target", field=kind))
        if not _let_through(text, schema):
            return
        passed.append(text)
        expression = _COMPILER.expression(text)
        for number in range(6):
            random = Random(seed + number)
            reply = {} if random.random() < 0.3 else _sample(_RESERVED, random)
            value = expression({"start": _sample(_ORDER, random), "reserve": reply})
            if isinstance(value, EvaluationError):
                assert any(excuse in value.message for excuse in _EXCUSED), value
            else:
                compile_writer(schema).put([], {"field": json.loads(json.dumps(value))})

    check()
    assert len(set(passed)) > 40, "too few expressions pass for this to show anything"
