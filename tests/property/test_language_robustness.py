"""Whatever a definition says, it is answered with findings; what has no errors compiles, published or not."""

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sagakit.core.definition import Definition
from sagakit.language.canonical import bundle, canonical_form, compile_bundle, expression_form
from sagakit.language.findings import errors
from sagakit.language.lint import compile_definition, lint
from sagakit.language.parse import Parsed, parse, parse_data
from sagakit.language.source import Source
from tests.unit.language.shop import BASE, SCHEMAS

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "5s",
            "start.text",
            "start.o_text",
            "reserve.place",
            "reserve",
            "ship",
            "note",
            "pivot",
            "retriable",
            "test.Ship",
        ]
    ),
    st.sampled_from(
        ["test.Reserve", "failure.code", "start.lines.map(l, l.sku)", "start.", "default(ship.parcel, 'x')"]
    ),
)
_KEYS = st.one_of(
    st.sampled_from(
        ["with", "when", "after", "kind", "compensate", "reply", "order_id", "amount", "note", "end", "to"]
    ),
    st.text(max_size=4),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=3)),
    max_leaves=5,
)


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(data, dict):
        for key, value in data.items():
            found += _places(value, (*path, key))
    return found


_PLACES = _places(BASE)[1:]


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(_PLACES), st.booleans(), _KEYS, _VALUES), min_size=1, max_size=3))
def test_a_mangled_definition_is_answered_with_findings_or_compiles(changes: list[tuple[Any, ...]]) -> None:
    data: Any = copy.deepcopy(BASE)
    for path, beside, key, value in changes:
        at = data
        for part in path[:-1]:
            at = at[part] if isinstance(at, dict) and part in at else {}
        if isinstance(at, dict):
            at[key if beside else path[-1]] = value
    parsed = parse_data(data, Source(file="test"))
    if isinstance(parsed, list):
        assert parsed
        return
    document = parsed.document
    findings = lint(document, SCHEMAS)
    compiled = compile_definition(document, SCHEMAS)
    assert isinstance(compiled, list) == bool(errors(findings))
    if isinstance(compiled, Definition):
        published = bundle(document, "", SCHEMAS)
        again = compile_bundle(published.canonical, published.schemas)
        assert list(again.tasks) == list(compiled.tasks)
        assert again.start_keep == compiled.start_keep
        reread = parse_data(json.loads(published.canonical), Source(file="test"))
        assert isinstance(reread, Parsed)
        assert canonical_form(reread.document) == published.canonical


@settings(max_examples=300)
@given(text=st.text(alphabet=st.sampled_from("aé:-[]{}&*!|>'\"#%@`,? \n\t0")))
def test_any_text_is_answered_with_findings(text: str) -> None:
    result = parse(text)
    assert isinstance(result, list)
    assert all(finding.line >= 1 and finding.column >= 1 for finding in result)


@settings(max_examples=300)
@given(text=st.text(alphabet=st.sampled_from("ab1.'\"\\r/ \n?:-+!&|()[]{},=<>`")))
def test_the_layout_of_any_text_is_stable(text: str) -> None:
    form = expression_form(text)
    assert expression_form(form) == form
