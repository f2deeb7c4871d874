"""The canonical form, what is published of it, and what is ruled on publishing."""

import copy
import json
from typing import Any

import pytest

from sagakit.core.definition import Again, Kind
from sagakit.language.canonical import bundle, canonical_form, compile_bundle, expression_form
from sagakit.language.compile import InvalidDefinitionError
from sagakit.language.lint import compile_definition
from sagakit.language.parse import Parsed, parse_data
from sagakit.language.publishing import AlreadyPublished, Publish, PublishedVersion, Refused, rule, rule_all
from sagakit.language.source import Source
from tests.unit.language.shop import REMOVED, SCHEMAS, document, varied

SPELT_OUT = {
    "impact": "medium",
    "again": "never",
    "dedupe": "60m",
    "deadline": "60s",
    "key": "start . text",
    "end.completed.to": "orders.events",
    "steps.reserve.kind": "compensatable",
    "steps.reserve.after": [],
    "steps.reserve.timeout": "5000ms",
    "steps.reserve.retry": {"attempts": 3, "backoff": "200ms", "max": "10s"},
    "steps.reserve.compensate.service": "inventory",
    "steps.reserve.compensate.timeout": "5s",
    "steps.reserve.compensate.retry": {"attempts": 10},
    "steps.note.retry": {"attempts": 10},
}


@pytest.mark.parametrize(("path", "value"), SPELT_OUT.items())
def test_what_means_the_same_has_the_same_form(path: str, value: Any) -> None:
    assert canonical_form(document({path: value})) == canonical_form(document())


def test_the_order_of_keys_and_names_does_not_matter() -> None:
    data = varied({"steps.note.after": ["ship", "reserve"], "steps.reserve.rejects": ["B", "A"]})
    reverse = copy.deepcopy(data)
    reverse["steps"] = dict(reversed(reverse["steps"].items()))
    reverse["steps"]["note"]["after"] = ["reserve", "ship", "ship"]
    reverse["steps"]["reserve"]["rejects"] = ["A", "B"]
    reverse = dict(reversed(reverse.items()))
    one, other = (parse_data(each, Source(file="test")) for each in (data, reverse))
    assert isinstance(one, Parsed)
    assert isinstance(other, Parsed)
    assert canonical_form(one.document) == canonical_form(other.document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 2),
        ("owner", "other"),
        ("key", "start.id"),
        ("again", "always"),
        ("deadline", REMOVED),
        ("steps.reserve.timeout", "6s"),
        ("steps.reserve.when", "start.flag"),
        ("steps.reserve.rejects", []),
        ("steps.reserve.with.order_id", "start.text + ' '"),
        ("steps.reserve.with.amount", 1),
        ("steps.reserve.budget", {"p99": "1s"}),
        ("steps.reserve.compensate", None),
        ("end.completed", REMOVED),
    ],
)
def test_what_means_something_else_has_another_form(path: str, value: Any) -> None:
    assert canonical_form(document({path: value})) != canonical_form(document())


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("a+b", "a + b"),
        ("  a  +  b // why\n + 1 ", "a + b + 1"),
        ("a- -b", "a - -b"),
        ("-a", "-a"),
        ("!a&&b||c", "!a && b || c"),
        ("a?b:c", "a ? b : c"),
        ("{'a' :1,'b':[1 , 2]}", "{'a': 1, 'b': [1, 2]}"),
        ("a?{'x':b?c:d}:e", "a ? {'x': b ? c : d} : e"),
        ("x in['a']", "x in ['a']"),
        ("f( a,b ) . c [ 0 ]", "f(a, b).c[0]"),
        ("'a  b'+\"c // d\"", "'a  b' + \"c // d\""),
        ("r'\\'+'\\''", "r'\\' + '\\''"),
        ("'''it's  '''+x", "'''it's  ''' + x"),
        ("1.5e-3*2u>=0x1F", "1.5e-3 * 2u >= 0x1F"),
        ("[-1,- 2]", "[-1, -2]"),
        ("a==-1", "a == -1"),
        ("a . `in`", "a.`in`"),
    ],
)
def test_only_white_space_and_comments_outside_of_strings_are_normalised(text: str, form: str) -> None:
    assert expression_form(text) == form
    assert expression_form(form) == form


def test_a_bundle_compiles_alone_and_to_the_same() -> None:
    changes = {
        "again": "after-compensated",
        "steps.ship.when": "start.flag && reserve.count > 0",
        "steps.ship.with.order_id": "default(reserve.place, 'x')",
        "steps.note.after": ["ship"],
        "end.compensated.with.reason": "failure.code",
    }
    published = bundle(document(changes), "the text", SCHEMAS)
    assert set(published.schemas) == set(SCHEMAS)
    definition = compile_bundle(published.canonical, published.schemas)
    assert (definition.name, definition.version, definition.again) == ("take-order", 1, Again.AFTER_COMPENSATED)
    assert list(definition.tasks) == ["reserve", "ship", "note"]
    assert definition.pivots == ("ship",)
    assert definition.start_keep == ("flag", "text")
    reserve, ship, note = definition.tasks.values()
    assert reserve.keep == ("count", "place")
    assert ship.kind is Kind.PIVOT
    assert ship.after == ("reserve",)
    assert ship.when is not None
    assert ship.when({"start": {"flag": True}, "reserve": {"count": 2}}) is True
    assert note.command.retry.attempts == 10
    assert reserve.compensate is not None
    assert reserve.compensate.timeout_ms == 5_000
    assert definition.completed is not None
    assert definition.completed.topic == "orders.events"
    assert definition.key({"start": {"text": "k"}}) == "k"


def test_a_variable_that_is_read_as_a_whole_is_kept_as_a_whole() -> None:
    data = varied({"steps.ship.with.order_id": "reserve == start.line ? 'a' : 'b'"})
    parsed = parse_data(data, Source(file="test"))
    assert isinstance(parsed, Parsed)
    definition = compile_bundle(canonical_form(parsed.document), SCHEMAS)
    assert definition.tasks[next(iter(definition.tasks))].keep == ("count", "place", "reservation")


def test_steps_stand_after_what_they_wait_for_whatever_their_names() -> None:
    # Names in the reverse order of what they wait for.
    one = {"service": "a", "command": "test.Ship", "with": {"order_id": "'x'"}, "timeout": "1s", "compensate": None}
    steps = {"c": one, "b": {**one, "after": ["c"]}, "a": {**one, "after": ["b", "c"]}, "d": one}
    definition = compile_definition(document({"steps": steps, "end": {}}), SCHEMAS)
    assert not isinstance(definition, list), definition
    assert list(definition.tasks) == ["c", "b", "a", "d"]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: "{",
        lambda data: "[" * 100_000,
        lambda data: json.dumps({**data, "end": None}),
        lambda data: json.dumps({**data, "unknown": 1}),
        lambda data: json.dumps({**data, "key": "start.("}),
        lambda data: json.dumps({**data, "start": "test.Unknown"}),
        lambda data: json.dumps({**data, "steps": {"A": data["steps"]["ship"]}}),
        lambda data: json.dumps({**data, "steps": {"a": {**data["steps"]["ship"], "after": ["a"]}}}),
        lambda data: json.dumps({**data, "steps": {"a": {**data["steps"]["ship"], "after": ["b"]}}}),
    ],
)
def test_what_cannot_be_compiled_is_said_and_nothing_else_is_raised(change: Any) -> None:
    data = json.loads(canonical_form(document()))
    with pytest.raises(InvalidDefinitionError):
        compile_bundle(change(data), SCHEMAS)


def published(*changes: dict[str, Any]) -> list[PublishedVersion]:
    made = [bundle(document(change), "text", SCHEMAS) for change in changes]
    return [
        PublishedVersion(name=one.name, version=one.version, canonical=one.canonical, hash=one.hash, source=one.source)
        for one in made
    ]


def test_a_new_version_is_published() -> None:
    ruling = rule(published({}), bundle(document({"version": 2, "owner": "new"}), "", SCHEMAS))
    assert isinstance(ruling, Publish)
    assert ruling.warnings == ()


def test_an_older_version_is_published_with_a_warning() -> None:
    ruling = rule(published({"version": 3}), bundle(document(), "", SCHEMAS))
    assert isinstance(ruling, Publish)
    assert "version 3" in ruling.warnings[0]


def test_the_same_body_again_changes_nothing() -> None:
    assert isinstance(rule(published({}), bundle(document(SPELT_OUT), "other text", SCHEMAS)), AlreadyPublished)


def test_another_body_under_a_published_version_is_refused_with_its_difference() -> None:
    ruling = rule(published({}, {"version": 2}), bundle(document({"owner": "other"}), "", SCHEMAS))
    assert isinstance(ruling, Refused)
    assert '-  "owner": "team",' in ruling.difference
    assert '+  "owner": "other",' in ruling.difference
    assert "as version 3" in ruling.reason


def test_a_definition_of_another_name_does_not_count() -> None:
    assert isinstance(rule(published({"saga": "other"}), bundle(document(), "", SCHEMAS)), Publish)


def test_two_bodies_of_one_version_are_not_published_together() -> None:
    both = [bundle(document(change), "", SCHEMAS) for change in ({}, {"owner": "other"})]
    assert [type(ruling) for ruling in rule_all([], both)] == [Publish, Refused]
