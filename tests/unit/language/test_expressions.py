"""Evaluation: total, and JSON in and out."""

from typing import Any

import pytest

from sagakit.core.values import EvaluationError
from sagakit.language.expressions import (
    CelExpression,
    Compiler,
    ConstantExpression,
    ExpressionError,
    PathExpression,
)

DATA: dict[str, Any] = {
    "start": {
        "id": "o-1",
        "cents": 5,
        "note": None,
        "lines": [{"sku": "a", "n": 1, "note": None}, {"sku": "b", "n": 2, "note": "x"}],
        "address": {"city": "Ghent"},
        "nan": "NaN",
        "zero": 0,
        "large": 2**63 - 1,
    },
    "reserve": {"place": None, "reservation": "r-1"},
    "ship": {},
}


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(["start", "failure", "reserve", "ship"])


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("start.id", PathExpression, "o-1"),
        ("  start . address\n.city", PathExpression, "Ghent"),
        ("start.note", PathExpression, None),
        ("start.address", PathExpression, {"city": "Ghent"}),
        ("ship", PathExpression, {}),
        ("'text'", ConstantExpression, "text"),
        ("-5", ConstantExpression, -5),
        ("null", ConstantExpression, None),
        ("start.cents > 3 && start.id != ''", CelExpression, True),
        ("start.lines.map(l, l.sku)", CelExpression, ["a", "b"]),
        ("start.lines.filter(l, l.n > 1)", CelExpression, [{"sku": "b", "n": 2, "note": "x"}]),
        ("start.lines[1].sku", CelExpression, "b"),
        ("{'a': [1, 2.5, null, true]}", CelExpression, {"a": [1, 2.5, None, True]}),
        ("start.lines", PathExpression, DATA["start"]["lines"]),
    ],
)
def test_a_text_has_its_value(compiler: Compiler, text: str, kind: type, value: Any) -> None:
    expression = compiler.expression(text)
    assert type(expression) is kind
    assert expression(DATA) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("has(start.id)", True),
        ("has(start.note)", False),
        ("has(start.nothing)", False),
        ("has(ship.parcel)", False),
        ("start.note == null", True),
        ("start.note != null", False),
        ("null == ship.parcel", True),
        ("ship.parcel != null", False),
        ("start.id != null", True),
        ("default(start.note, 'none')", "none"),
        ("default(start.id, 'none')", "o-1"),
        ("default(ship.parcel, 'none')", "none"),
        ("default(ship.parcel, null)", None),
        ("default(start.lines[9].sku, 'none')", "none"),
        ("default(10 / start.zero, -1)", -1),
        ("default(int(start.id), 0)", 0),
        ("default(start.large + 1, 0)", 0),
        ("default(default(ship.parcel, start.note), start.id)", "o-1"),
        ("default(start.zero, 7)", 0),
        ("default(start.lines.filter(l, has(l.note)), [])", [{"sku": "b", "n": 2, "note": "x"}]),
        ("start.lines.exists(l, l.note == null)", True),
        ("start.lines.all(l, default(l.note, 'x') == 'x')", True),
        ("start.note != null && start.note.size() > 1", False),
    ],
)
def test_guards_and_defaults_answer_for_null_absence_and_failure(compiler: Compiler, text: str, value: Any) -> None:
    assert compiler.expression(text)(DATA) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("timestamp('2026-11-23T14:05:09Z')", "2026-11-23T14:05:09.000Z"),
        ("timestamp('2026-11-23T14:05:09.123456Z')", "2026-11-23T14:05:09.123456Z"),
        ("timestamp('2026-11-23T14:05:09+02:00')", "2026-11-23T12:05:09.000Z"),
        ("duration('90.5s')", "PT90.500S"),
        ("b'ab'", "YWI="),
        ("0.0 / 0.0", "NaN"),
        ("-1.0 / 0.0", "-Infinity"),
        ("7u", 7),
    ],
)
def test_results_have_the_json_form_that_avro_data_has(compiler: Compiler, text: str, value: Any) -> None:
    assert compiler.expression(text)(DATA) == value


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("ship.parcel", 1, "`ship` has no `parcel`"),
        (" start.note.x", 2, "`start.note` is null"),
        ("start.id.x", 1, "`start.id` is no mapping"),
        ("failure.kind", 1, "there is no `failure`"),
        ("failure.kind == 'x'", 0, "there is no `failure`"),
        ("1 / start.zero", 0, "divide by zero"),
        ("start.large + 1", 0, "integer overflow"),
        ("start.lines[2]", 0, "Index error"),
        ("start.nothing + 1", 0, "Key not found"),
        ("start.note + 'x'", 0, "No matching overloads"),
        ("start.nan * 2.0", 0, "No matching overloads"),
        ("int(start.id)", 0, "cannot convert string to int"),
        ("{1: 2}", 0, "a key of a map (of type int) is not a string"),
        ("type(1)", 0, "no JSON form"),
        ("duration('-1s')", 0, "negative"),
    ],
)
def test_what_has_no_value_is_an_error_and_never_raised(
    compiler: Compiler, text: str, column: int, message: str
) -> None:
    error = compiler.expression(text)(DATA)
    assert isinstance(error, EvaluationError)
    assert (error.expression, error.column) == (text, column)
    assert message in error.message


@pytest.mark.parametrize("odd", ["\ud800", object(), 2**70, (1,), {1: 2}, b"x", {"a": {1}}])
@pytest.mark.parametrize("text", ["start.odd > 1", "start", "start.odd.x", "default(start.odd, 1)"])
def test_data_that_is_no_json_never_raises(compiler: Compiler, text: str, odd: Any) -> None:
    compiler.expression(text)({"start": {"odd": odd}})


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("start.", 6),
        ("strat.id", 5),
        ("1 +\n 'a'", 2),
        ("[1,\n nope]", 5),
        ("", 0),
        ("start.?id", 0),
        ("google.protobuf.StringValue{value: 'a'}", 27),
        ("(" * 500 + "1" + ")" * 500, 0),
    ],
)
def test_what_is_no_expression_is_refused_with_its_place(compiler: Compiler, text: str, offset: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        compiler.expression(text)
    assert caught.value.problems[0].message
    if text.count("(") < 500 and "protobuf" not in text and "?" not in text:
        assert caught.value.problems[0].offset == offset


def test_fields_are_built_of_expressions_and_constants(compiler: Compiler) -> None:
    field = compiler.field({"id": "start.id", "list": ["start.cents", 1, None, {"deep": True}], "text": "'t'"})
    assert field(DATA) == {"id": "o-1", "list": [5, 1, None, {"deep": True}], "text": "t"}
    failing = compiler.field({"list": ["start.id", "ship.parcel"]})(DATA)
    assert isinstance(failing, EvaluationError)
    assert failing.expression == "ship.parcel"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("start.id", {"start": {"id"}}),
        ("start.address.city", {"start": {"address"}}),
        ("has(start.note) ? start.id : reserve.place", {"start": {"note", "id"}, "reserve": {"place"}}),
        ("start.lines.map(l, l.sku + start.id)", {"start": {"lines", "id"}}),
        ("default(ship.parcel, 'x')", {"ship": {"parcel"}}),
        ("reserve", {"reserve": None}),
        ("start == reserve ? start.id : ''", {"start": None, "reserve": None}),
        ("start['id']", {"start": None}),
        ("'start.id'", {}),
        ("1 + 1", {}),
    ],
)
def test_what_is_read_is_known(text: str, read: dict[str, Any]) -> None:
    compiler = Compiler(["start", "failure", "reserve", "ship"])
    compiler.expression(text)
    assert compiler.read == read


def _nested(depth: int) -> str:
    text = "1"
    for level in range(depth):
        text = f"[1].map(x{level}, {text})"
    return text


def test_comprehensions_within_each_other_compile(compiler: Compiler) -> None:
    compiler.expression(_nested(5))


@pytest.mark.parametrize("depth", [20, 30])
def test_comprehensions_nested_deeper_than_can_be_read_are_refused(compiler: Compiler, depth: int) -> None:
    with pytest.raises(ExpressionError, match="nested"):
        compiler.expression(_nested(depth))
