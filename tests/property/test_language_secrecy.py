"""Whatever goes wrong in an evaluation, its error tells nothing of the data: it goes to logs, past every mask."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagakit.core.values import EvaluationError
from sagakit.language.expressions import Compiler, NoValueError, json_form
from sagakit.language.failures import UNKNOWN, without_values

# Every text of the data has a character that no expression and no message has.
_MARK = "\N{SECTION SIGN}"
_TEXTS = st.one_of(
    st.tuples(st.text(max_size=12), st.text(max_size=12)).map(_MARK.join),
    st.sampled_from([f"{_MARK}-4111", f"(((({_MARK}", f"2026-{_MARK}", f'"{_MARK}": [INTERNAL]', f"ERROR: {_MARK}\n"]),
    st.binary(min_size=1, max_size=12).map(lambda raw: _MARK + base64.b64encode(raw).decode()),
)
_NUMBERS = st.integers(min_value=10**17, max_value=2**63 - 1)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(_TEXTS, _NUMBERS, st.none(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=4,
)
_DATA = st.fixed_dictionaries(dict.fromkeys("abc", _VALUES))

_EXPRESSIONS = [
    "start.a[start.b]",
    "start.a[start.b][start.c]",
    "start[start.a]",
    "{'x': start.a}[start.b]",
    "{start.a: 1, start.b: 2}",
    "{start.a: 1, start.a: 2}",
    "{start.a: start.b}",
    "[start.a][start.b]",
    "start.a + start.b",
    "start.a - start.b",
    "start.a * start.b",
    "start.a / start.b",
    "start.a % 0",
    "-start.a",
    "!start.a",
    "start.a < start.b",
    "start.a && start.b",
    "start.a ? start.b : start.c",
    "start.a.matches(start.b)",
    "start.a.contains(start.b)",
    "start.a.x",
    "start.a.x + 1",
    "int(start.a)",
    "uint(start.a)",
    "double(start.a)",
    "bool(start.a)",
    "bytes(start.a)",
    "string(start.a) + start.b",
    "timestamp(start.a)",
    "duration(start.a)",
    "timestamp(start.a) + duration(start.b)",
    "timestamp(string(start.a)).getHours(start.b)",
    "timestamp('2026-01-01T00:00:00Z').getHours(start.a)",
    "start.a.getSeconds()",
    "size(start.a)",
    "type(start.a)",
    "[type(start.a), start.b]",
    "start.a in start.b",
    "start.a.map(x, x.y)",
    "start.a.map(x, x + start.b)",
    "start.a.all(x, x)",
    "start.a.filter(x, x == start.b)[0]",
    "{1: start.a}",
]
_COMPILER = Compiler(["start"])
_COMPILED = [_COMPILER.expression(text) for text in _EXPRESSIONS]


@given(data=_DATA)
def test_no_value_of_the_data_stands_in_an_error(data: Any) -> None:
    for text, expression in zip(_EXPRESSIONS, _COMPILED, strict=True):
        error = expression({"start": data})
        if isinstance(error, EvaluationError):
            assert error.expression == text
            assert error.message
            assert not _told(error.message, list(data.values())), (text, error.message)


def _told(message: str, value: Any) -> list[Any]:
    """What of the data a message tells."""
    match value:
        case dict():
            return [one for pair in value.items() for part in pair for one in _told(message, part)]
        case list():
            return [one for element in value for one in _told(message, element)]
        case str():
            return [value] if _MARK in message or value in message else []
        case int() if not isinstance(value, bool):
            return [value] if str(value) in message else []
    return []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start.tags[start.secret]", "Key not found in map"),
        ("start.numbers[start.card]", "Index error"),
        ("start.secret.matches(start.open)", "invalid regular expression"),
        ("{start.secret: 1, start.secret: 2}", "the expression cannot be evaluated: duplicate key in map"),
        ("{start.card: 1}", "a key of a map (of type int) is not a string"),
        ("start.secret + 1", "No matching overloads found : _+_(string, int64)"),
        (
            "start.many.map(x, start.many.map(y, x))",
            "the expression cannot be evaluated: Iteration budget exceeded",
        ),
        ("start.secret.getHours()", "No matching overloads found : (string).getHours()"),
        ("duration(start.secret)", "String to Duration conversion failed"),
        ("bool(start.secret)", "Type conversion error from 'string' to 'bool'"),
    ],
)
def test_the_kind_of_failure_is_told(text: str, message: str) -> None:
    data: Any = {"tags": {}, "numbers": [], "secret": "card-SECRET-1", "card": 4111_1111_1111_1111, "open": "(SECRET["}
    data["many"] = list(range(200))
    assert _COMPILER.expression(text)({"start": data}) == EvaluationError(expression=text, column=0, message=message)


def test_a_failure_of_a_kind_that_is_not_known_tells_nothing() -> None:
    assert without_values("INTERNAL: the value card-SECRET-1 is odd [INTERNAL]") == UNKNOWN
    assert without_values("No matching overloads found : f(card-SECRET-1)") == "No matching overloads found"
    assert without_values("divide by zero card-SECRET-1") == UNKNOWN


def test_a_result_without_a_json_form_is_not_told() -> None:
    with pytest.raises(NoValueError, match="of type complex") as caught:
        json_form(4111j)
    assert "4111" not in str(caught.value)
