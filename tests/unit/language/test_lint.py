"""Each rule finds what breaks it and is silent where it is kept."""

from typing import Any

import pytest

from sagakit.language.findings import RULES
from sagakit.language.lint import lint_text
from tests.unit.language.shop import REMOVED, SCHEMAS, as_text, codes, field_codes, findings, places, record

_WITH = "steps.reserve.with.amount"
_SHIP = "steps.ship.with.order_id"
_UNDO = "steps.reserve.compensate.with.reservation"
_WHEN = {"steps.reserve.when": "start.flag"}

# code, what breaks it, what keeps it (changes of the base definition), and all that is found in the broken text, with
# its line and column and what stands there
RULES_BROKEN_AND_KEPT: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("SK103", {"steps.reserve.tiemout": "5s"}, {"steps.reserve.timeout": "6s"}, ["SK103 22:5 tiemout: 5s"]),
    ("SK104", {"steps.reserve.timeout": REMOVED}, {"deadline": REMOVED}, ["SK104 9:3 reserve:"]),
    ("SK104", {"owner": REMOVED}, {"impact": "high"}, ["SK104 1:1 saga: take-order"]),
    ("SK105", {"deadline": "15"}, {"deadline": "15m"}, ["SK105 7:11 '15'"]),
    ("SK105", {"deadline": 15}, {"deadline": "1h30m"}, ["SK105 7:11 15"]),
    ("SK105", {"version": "1"}, {"version": 2}, ["SK105 2:10 '1'"]),
    ("SK105", {"version": True}, {"version": 1}, ["SK105 2:10 true"]),
    ("SK105", {"steps.reserve.retry": {"attempts": 0}}, {"steps.reserve.retry": {"attempts": 1}}, ["SK105 23:17 0"]),
    (
        "SK105",
        {"steps.reserve.budget": {"failures": "150%"}},
        {"steps.reserve.budget": {"failures": "1.5%"}},
        ["SK105 23:17 150%"],
    ),
    ("SK105", {"again": "sometimes"}, {"again": "always"}, ["SK105 50:8 sometimes"]),
    ("SK106", {"saga": "Take Order"}, {"saga": "take_order-2"}, ["SK106 1:7 Take Order"]),
    (
        "SK106",
        {"steps.Bad": {"service": "a", "command": "test.Ship", "timeout": "1s", "after": ["reserve"]}},
        {},
        ["SK106 41:3 Bad:", "SK204 41:3 Bad:", "SK210 41:3 Bad:", "SK402 41:3 Bad:"],
    ),
    ("SK106", {"start": "not a record"}, {"start": "test.Order"}, ["SK106 4:8 not a record"]),
    (
        "SK108",
        {"steps.reserve.rejects": ["outOfStock"]},
        {"steps.reserve.rejects": ["OUT_OF_STOCK", "E2"]},
        ["SK108 16:7 outOfStock"],
    ),
    (
        "SK201",
        {"steps.ship.after": ["reserv"]},
        {"steps.ship.after": ["reserve"]},
        ["SK204 9:3 reserve:", "SK201 24:7 reserv"],
    ),
    ("SK202", {"steps.reserve.after": ["note"]}, {}, ["SK202 35:5 after:"]),
    ("SK202", {"steps.reserve.after": ["reserve"]}, {}, ["SK202 22:5 after:"]),
    ("SK203", {"steps.note.kind": "pivot"}, {}, ["SK203 35:11 pivot"]),
    (
        "SK204",
        {"steps.note": {"service": "a", "command": "test.Ship", "timeout": "1s", "compensate": None}},
        {},
        ["SK204 32:3 note:", "SK402 32:3 note:"],
    ),
    ("SK205", {"steps.ship.kind": "retriable"}, {}, ["SK205 25:11 retriable", "SK205 35:11 retriable"]),
    ("SK205", {"steps.note.after": []}, {}, ["SK205 34:11 retriable"]),
    (
        "SK206",
        {"steps.ship.compensate": {"command": "test.Ship", "with": {"order_id": "start.text"}}},
        {},
        ["SK206 32:5 compensate:"],
    ),
    (
        "SK207",
        {"steps.reserve.retry": {"attempts": 2, "backoff": "20s", "max": "10s"}},
        {"steps.reserve.retry": {"attempts": 2, "backoff": "10s", "max": "10s"}},
        ["SK207 24:16 20s"],
    ),
    (
        "SK207",
        {"steps.reserve.compensate.retry": {"attempts": 2, "backoff": "20s"}},
        {"steps.reserve.compensate.retry": {"attempts": 2, "backoff": "1s"}},
        ["SK207 24:18 20s"],
    ),
    (
        "SK208",
        {"on": REMOVED},
        {"on": REMOVED, "end.completed.to": "a", "end.compensated.to": "b"},
        ["SK208 41:3 completed:", "SK208 45:3 compensated:"],
    ),
    ("SK209", {"deadline": "4s"}, {"deadline": "5s"}, ["SK209 17:14 5s", "SK209 31:14 5s", "SK209 40:14 5s"]),
    ("SK210", {"steps.reserve.compensate": REMOVED}, {"steps.reserve.compensate": None}, ["SK210 9:3 reserve:"]),
    ("SK301", {"steps.ship.command": "test.Shipp"}, {}, ["SK301 27:14 test.Shipp"]),
    ("SK301", {"steps.ship.reply": "test.Shippd"}, {}, ["SK301 30:12 test.Shippd"]),
    ("SK301", {"start": "test.Ordre", "key": "'x'"}, {}, ["SK301 4:8 test.Ordre"]),
    ("SK301", {"end.completed.publish": "test.Don"}, {}, ["SK301 43:14 test.Don"]),
    ("SK301", {"steps.reserve.compensate.command": "test.Relase"}, {}, ["SK301 19:16 test.Relase"]),
    ("SK303", {"key": "start.text +"}, {"key": "start.text + 'x'"}, ["SK303 6:18"]),
    ("SK304", {"key": "start.txt"}, {"key": "start.text"}, ["SK304 6:12 txt"]),
    (
        "SK304",
        {_WITH: "start.grid[0][0].x > 0 ? 1 : 2"},
        {_WITH: "start.small"},
        [
            "SK304 14:16 start.grid[0][0].x > 0 ? 1 : 2'",
            "SK311 14:16 start.grid[0][0].x > 0 ? 1 : 2'",
            "SK311 14:16 start.grid[0][0].x > 0 ? 1 : 2'",
        ],
    ),
    (
        "SK304",
        {_WITH: "has(start.o_line.qantity) ? 1 : 2"},
        {_WITH: "start.o_line != null ? start.o_line.quantity : 2"},
        ["SK304 14:20 start.o_line.qantity) ? 1 : 2'"],
    ),
    ("SK305", {"key": "strat.text"}, {"key": "start.text"}, ["SK305 6:6 strat.text"]),
    ("SK305", {_WITH: "lenght(start.text)"}, {_WITH: "size(start.text)"}, ["SK305 14:15 lenght(start.text)"]),
    ("SK306", {_WITH: "start.text + 1"}, {_WITH: "start.small + 1"}, ["SK306 14:26 + 1"]),
    ("SK306", {_WITH: "size(start.small)"}, {_WITH: "size(start.lines)"}, ["SK306 14:15 size(start.small)"]),
    (
        "SK306",
        {_WITH: "start.text.matches('[') ? 1 : 2"},
        {_WITH: "start.text.matches('[a-z]') ? 1 : 2"},
        ["SK306 14:16 start.text.matches('[') ? 1 : 2\""],
    ),
    (
        "SK306",
        {_WITH: "default(start.o_text, 1) == 'a' ? 1 : 2"},
        {_WITH: "default(start.o_text, '') == 'a' ? 1 : 2"},
        ["SK306 14:24 start.o_text, 1) == 'a' ? 1 : 2\""],
    ),
    (
        "SK306",
        {_WITH: "duration('1x') > duration('1s') ? 1 : 2"},
        {_WITH: "duration('1h') > duration('1s') ? 1 : 2"},
        ["SK306 14:16 duration('1x') > duration('1s') ? 1 : 2\""],
    ),
    (
        "SK306",
        {_WITH: "start.either.size()"},
        {_WITH: "type(start.either) == string ? start.either.size() : 0"},
        ["SK306 14:15 start.either.size()"],
    ),
    (
        "SK306",
        {_WITH: "[1, 'a'][0] > 0 ? 1 : 2"},
        {_WITH: "default([1, 'a'][0] > 0 ? 1 : 2, 3)"},
        ["SK306 14:16 [1, 'a'][0] > 0 ? 1 : 2\""],
    ),
    (
        "SK307",
        {"steps.reserve.with.order_id": "ship.parcel"},
        {_SHIP: "reserve.reservation"},
        ["SK307 13:17 ship.parcel"],
    ),
    ("SK307", {"key": "reserve.reservation"}, {}, ["SK307 6:6 reserve.reservation"]),
    ("SK307", {"steps.reserve.with.order_id": "default(ship.parcel, 'x')"}, {}, ["SK307 13:25 ship.parcel, 'x')"]),
    (
        "SK307",
        {"steps.reserve.compensate.with.order_id": "has(ship.parcel) ? ship.parcel : 'x'"},
        {},
        ["SK307 21:24 ship.parcel) ? ship.parcel : 'x'\"", "SK307 21:39 ship.parcel : 'x'\""],
    ),
    ("SK308", {_SHIP: "failure.kind"}, {"end.compensated.with.reason": "failure.kind"}, ["SK308 29:17 failure.kind"]),
    (
        "SK308",
        {"end.completed.with.parcel": "failure.code"},
        {"end.compensated.with.reason": "failure.code"},
        ["SK308 46:15 failure.code"],
    ),
    ("SK309", {"key": "start.o_text"}, {"key": "default(start.o_text, 'none')"}, ["SK309 6:6 start.o_text"]),
    (
        "SK309",
        {_SHIP: "start.o_text"},
        {_SHIP: "start.o_text != null ? start.o_text : 'none'"},
        ["SK309 29:17 start.o_text"],
    ),
    (
        "SK309",
        {_SHIP: "start.o_text"},
        {_SHIP: "start.o_text == null ? 'none' : start.o_text"},
        ["SK309 29:17 start.o_text"],
    ),
    (
        "SK309",
        {_SHIP: "start.o_text"},
        {_SHIP: "has(start.o_text) ? start.o_text : 'none'"},
        ["SK309 29:17 start.o_text"],
    ),
    (
        "SK309",
        {_SHIP: "start.o_text + 'x'"},
        {_SHIP: "!has(start.o_text) ? 'x' : start.o_text + 'x'"},
        ["SK309 29:17 start.o_text + 'x'"],
    ),
    ("SK309", {_SHIP: "null"}, {_WITH: "null"}, ["SK309 29:18 null'"]),
    ("SK309", {_SHIP: None}, {_WITH: None}, ["SK309 29:17 null"]),
    (
        "SK309",
        {_WITH: "start.o_line.quantity"},
        {_WITH: "start.o_line != null ? start.o_line.quantity : 0"},
        ["SK309 14:15 start.o_line.quantity"],
    ),
    (
        "SK309",
        {_WITH: "size(start.o_lines)"},
        {_WITH: "has(start.o_lines) ? size(start.o_lines) : 0"},
        ["SK309 14:20 start.o_lines)"],
    ),
    (
        "SK309",
        {_WITH: "start.o_small > 1 ? 1 : 2"},
        {_WITH: "start.o_small != null && start.o_small > 1 ? 1 : 2"},
        ["SK309 14:16 start.o_small > 1 ? 1 : 2'"],
    ),
    (
        "SK309",
        {_WITH: "start.o_small > 1 ? 1 : 2"},
        {_WITH: "start.o_small == null || start.o_small > 1 ? 1 : 2"},
        ["SK309 14:16 start.o_small > 1 ? 1 : 2'"],
    ),
    (
        "SK309",
        {_WITH: "start.parent.parent.small"},
        {_WITH: "default(start.parent.parent.small, 1)"},
        ["SK309 14:15 start.parent.parent.small", "SK309 14:15 start.parent.parent.small"],
    ),
    (
        "SK309",
        {"steps.reserve.when": "start.o_flag"},
        {"steps.reserve.when": "default(start.o_flag, false)"},
        ["SK309 22:11 start.o_flag"],
    ),
    ("SK309", {_SHIP: "reserve.place"}, {_SHIP: "default(reserve.place, 'x')"}, ["SK309 29:17 reserve.place"]),
    (
        "SK309",
        {_SHIP: "start.lines.map(l, l.note + 'x')[0]"},
        {_SHIP: "default(start.lines.map(l, l.note + 'x')[0], '')"},
        ["SK311 29:17 start.lines.map(l, l.note + 'x')[0]", "SK309 29:36 l.note + 'x')[0]"],
    ),
    (
        "SK309",
        {_WITH: "size(start.lines.filter(l, l.note.size() > 1))"},
        {_WITH: "size(start.lines.filter(l, has(l.note) && l.note.size() > 1))"},
        ["SK309 14:42 l.note.size() > 1))"],
    ),
    (
        "SK310",
        {**_WHEN, _SHIP: "reserve.reservation"},
        {**_WHEN, _SHIP: "default(reserve.reservation, 'x')"},
        ["SK310 30:17 reserve.reservation"],
    ),
    (
        "SK310",
        {**_WHEN, _SHIP: "reserve.reservation"},
        {**_WHEN, _SHIP: "has(reserve.count) ? reserve.reservation : 'x'"},
        ["SK310 30:17 reserve.reservation"],
    ),
    (
        "SK310",
        {**_WHEN, _SHIP: "reserve.reservation"},
        {**_WHEN, _SHIP: "reserve.reservation != null ? reserve.reservation : 'x'"},
        ["SK310 30:17 reserve.reservation"],
    ),
    (
        "SK310",
        {_UNDO: "reserve.reservation"},
        {_UNDO: "has(reserve.reservation) ? reserve.reservation : null"},
        ["SK310 22:22 reserve.reservation"],
    ),
    ("SK310", {_UNDO: "reserve.place"}, {_UNDO: "default(reserve.place, null)"}, ["SK310 22:22 reserve.place"]),
    (
        "SK310",
        {"end.compensated.with.reason": "ship.parcel"},
        {"end.compensated.with.reason": "default(ship.parcel, null)"},
        ["SK310 50:15 ship.parcel"],
    ),
    (
        "SK310",
        {
            "steps.note.when": "start.flag",
            "steps.note.reply": "test.Shipped",
            "end.completed.with.parcel": "note.parcel",
        },
        {"steps.note.reply": "test.Shipped", "end.completed.with.parcel": "note.parcel"},
        ["SK310 48:15 note.parcel"],
    ),
    (
        "SK310",
        {_WITH: "start.tags.a == 'x' ? 1 : 2"},
        {_WITH: "has(start.tags.a) && start.tags.a == 'x' ? 1 : 2"},
        ["SK310 14:16 start.tags.a == 'x' ? 1 : 2\""],
    ),
    (
        "SK311",
        {_WITH: "start.numbers[0]"},
        {_WITH: "size(start.numbers) > 0 ? start.numbers[0] : 1"},
        ["SK311 14:15 start.numbers[0]"],
    ),
    (
        "SK311",
        {_WITH: "start.numbers[1]"},
        {_WITH: "start.numbers.size() >= 2 ? start.numbers[1] : 1"},
        ["SK311 14:15 start.numbers[1]"],
    ),
    (
        "SK311",
        {_WITH: "size(start.numbers) > 0 ? start.numbers[1] : 1"},
        {_WITH: "default(start.numbers[1], 1)"},
        ["SK311 14:42 start.numbers[1] : 1'"],
    ),
    ("SK311", {_WITH: "start.numbers[-1]"}, {_WITH: "[1, 2][1]"}, ["SK311 14:15 start.numbers[-1]"]),
    (
        "SK311",
        {_SHIP: "start.tags['a']"},
        {_SHIP: "'a' in start.tags ? start.tags['a'] : ''"},
        ["SK311 29:17 start.tags['a']"],
    ),
    (
        "SK311",
        {_SHIP: "start.tags[start.text]"},
        {_SHIP: "start.text in start.tags ? start.tags[start.text] : ''"},
        ["SK311 29:17 start.tags[start.text]"],
    ),
    (
        "SK312",
        {_WITH: "10 / start.small"},
        {_WITH: "start.small != 0 ? 10 / start.small : 0"},
        ["SK312 14:20 start.small"],
    ),
    (
        "SK312",
        {_WITH: "10 % start.small"},
        {_WITH: "start.small > 0 ? 10 % start.small : 0"},
        ["SK312 14:20 start.small"],
    ),
    ("SK312", {_WITH: "10 / 0"}, {_WITH: "10 / 2"}, ["SK312 14:20 0"]),
    (
        "SK312",
        {_WITH: "start.small >= 0 ? 10 / start.small : 0"},
        {_WITH: "default(10 / start.small, 0)"},
        ["SK312 14:40 start.small : 0'"],
    ),
    (
        "SK312",
        {_WITH: "start.small == 0 ? 10 / start.small : 0"},
        {_WITH: "start.small == 0 ? 0 : 10 / start.small"},
        ["SK312 14:40 start.small : 0'"],
    ),
    (
        "SK313",
        {_WITH: "int(start.text)"},
        {_WITH: "start.text.matches('^[0-9]{1,9}$') ? int(start.text) : 0"},
        ["SK313 14:15 int(start.text)"],
    ),
    (
        "SK313",
        {_WITH: "int(start.double)"},
        {_WITH: "default(int(start.double), 0)"},
        ["SK313 14:15 int(start.double)"],
    ),
    (
        "SK313",
        {"steps.reserve.when": "timestamp(start.text) > timestamp('2026-01-01T00:00:00Z')"},
        {"steps.reserve.when": "timestamp(start.micros) > timestamp('2026-01-01T00:00:00Z')"},
        ["SK313 22:11 timestamp(start.text) > timestamp('2026-01-01T00:00:00Z')"],
    ),
    (
        "SK314",
        {_WITH: "size(start.lines.map(ship, ship.sku))"},
        {_WITH: "size(start.lines.map(l, l.sku))"},
        ["SK314 14:20 start.lines.map(ship, ship.sku))"],
    ),
    (
        "SK315",
        {_WITH: "google.protobuf.Int64Value{value: 1}"},
        {_WITH: "1"},
        ["SK315 14:16 google.protobuf.Int64Value{value: 1}'"],
    ),
    ("SK401", {"steps.reserve.with.ammount": "1"}, {_WITH: "1"}, ["SK401 14:7 ammount: '1'"]),
    ("SK402", {"steps.reserve.with": {}}, {"steps.reserve.with": {"order_id": "start.text"}}, ["SK402 12:5 with: {}"]),
    ("SK403", {_WITH: "start.text"}, {_WITH: "start.large"}, ["SK403 14:15 start.text"]),
    ("SK403", {_WITH: True}, {_WITH: 7}, ["SK403 14:15 true"]),
    ("SK405", {"key": "start.flag"}, {"key": "start.large"}, ["SK405 6:6 start.flag"]),
    ("SK405", {"key": "start.line"}, {"key": "start.id"}, ["SK405 6:6 start.line"]),
    ("SK405", {"key": "start.raw"}, {"key": "start.either"}, ["SK405 6:6 start.raw"]),
    ("SK405", {"key": "start.double"}, {"key": "string(start.double)"}, ["SK405 6:6 start.double"]),
    (
        "SK406",
        {"steps.reserve.when": "start.small"},
        {"steps.reserve.when": "start.small > 0"},
        ["SK406 22:11 start.small"],
    ),
]


@pytest.mark.parametrize(("code", "broken", "kept", "found"), RULES_BROKEN_AND_KEPT)
def test_a_rule_finds_what_breaks_it_where_it_stands_and_nothing_else(
    code: str, broken: dict[str, Any], kept: dict[str, Any], found: list[str]
) -> None:
    assert places(broken) == found
    assert any(one.startswith(code) for one in found)
    assert places(kept) == []
    assert findings(kept) == []
    for finding in findings(broken):
        assert finding.message
        assert finding.remedy
        assert finding.severity is RULES[finding.code].severity


def test_rules_that_other_tests_break_tell_the_place_too() -> None:
    enum = {
        "test.Reserve": record("Reserve", order_id="string", amount={"type": "enum", "name": "E", "symbols": ["A"]})
    }
    assert places({_WITH: "'B'"}, enum) == ["SK404 14:16 'B'\""]
    uuid = {"test.Reserve": record("Reserve", order_id="string", amount={"type": "string", "logicalType": "uuid"})}
    assert places({_WITH: "start.text"}, uuid) == ["SK407 14:15 start.text"]
    assert places({}, {"test.Shipped": "{"}) == ["SK302 30:12 test.Shipped"]
    step = {"service": "a", "command": "test.Ship", "with": {"order_id": "'x'"}, "timeout": "1s"}
    assert "SK107 9:3 int:" in places({"steps": {"int": step}, "end": {}})
    broken = lint_text("saga: a\nsteps: [\n", SCHEMAS, "a.yaml").findings
    assert [(one.code, one.file, one.line, one.column) for one in broken] == [("SK101", "a.yaml", 3, 1)]
    text = as_text({}) + "saga: again\n"
    twice = lint_text(text, SCHEMAS, "a.yaml").findings
    assert [(one.code, one.line, one.column) for one in twice] == [("SK102", len(text.splitlines()), 1)]


@pytest.mark.parametrize("name", ["start", "failure", "saga", "int", "in", "true", "default", "map"])
def test_a_step_is_not_called_by_a_reserved_word(name: str) -> None:
    step = {"service": "a", "command": "test.Ship", "with": {"order_id": "'x'"}, "timeout": "1s"}
    assert "SK107" in codes({"steps": {name: step}, "end": {}})


def test_an_unreadable_schema_is_found() -> None:
    assert codes({}, {"test.Ship": '{"type": "record", "name": "Ship"'}) == ["SK302", "SK302"]
    assert codes({}, {"test.Ship": record("Ship", order_id="test.Unknown")}) == ["SK302", "SK302"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string", "start.text"),
        ("string", "start.colour"),
        ("string", "start.id"),
        ("string", "start.millis"),
        ("string", "string(start.small)"),
        ("string", "timestamp(start.millis)"),
        ("boolean", "start.small > 1"),
        ("boolean", True),
        ("int", "start.small"),
        ("int", "size(start.lines)"),
        ("int", 2**31 - 1),
        ("long", "start.small"),
        ("long", "start.either == 1 ? 1 : 2"),
        ("double", "start.small"),
        ("double", "start.single"),
        ("double", "double(start.large)"),
        ("double", 1),
        ("double", "1"),
        ("double", "double(start.price)"),
        ("float", "start.single"),
        ("bytes", "start.raw"),
        ("bytes", "start.hash"),
        ("bytes", "b'abc'"),
        (["null", "string"], "start.o_text"),
        (["null", "string"], "start.flag ? dyn(null) : 'x'"),
        (["string", "long"], "start.either"),
        (["string", "long", "boolean"], "start.either"),
        (["string", "long"], "start.small"),
        ({"type": "enum", "name": "E", "symbols": ["RED", "GREEN", "BLUE"]}, "start.colour"),
        ({"type": "enum", "name": "E", "symbols": ["RED"]}, "'RED'"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "start.flag ? 'A' : 'B'"),
        ({"type": "fixed", "name": "F", "size": 4}, "start.hash"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3}, "start.price"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3}, "'12.5'"),
        ({"type": "string", "logicalType": "uuid"}, "start.id"),
        ({"type": "int", "logicalType": "date"}, "'2026-11-23'"),
        ({"type": "long", "logicalType": "timestamp-micros"}, "start.millis"),
        ({"type": "long", "logicalType": "timestamp-micros"}, "timestamp(start.millis)"),
        ({"type": "long", "logicalType": "time-micros"}, "start.at_millis"),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, "start.local"),
        ({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}, "start.span"),
        ({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}, "duration('90s')"),
        ({"type": "array", "items": "string"}, "start.lines.map(l, l.sku)"),
        ({"type": "array", "items": "string"}, "start.lines.filter(l, l.quantity > 1).map(l, l.sku)"),
        ({"type": "array", "items": "string"}, "start.lines.map(l, has(l.note), l.note)"),
        ({"type": "array", "items": "string"}, ["start.text", "'x'"]),
        ({"type": "array", "items": "long"}, "[1, start.small]"),
        ({"type": "array", "items": "long"}, "start.numbers"),
        ({"type": "array", "items": {"type": "array", "items": "long"}}, "start.grid"),
        ({"type": "array", "items": ["null", "string"]}, "start.gaps"),
        ({"type": "map", "values": "string"}, "start.tags"),
        ({"type": "map", "values": "string"}, {"a": "start.text", "b": "'x'"}),
        ({"type": "map", "values": "long"}, "{'a': 1, start.text: start.small}"),
        (
            {"type": "record", "name": "R", "fields": [{"name": "sku", "type": "string"}]},
            {"sku": "start.line.sku"},
        ),
        ({"type": "record", "name": "R", "fields": [{"name": "sku", "type": "string"}]}, "{'sku': start.line.sku}"),
        (
            {"type": "array", "items": {"type": "record", "name": "R", "fields": [{"name": "sku", "type": "string"}]}},
            "start.lines.map(l, {'sku': l.sku})",
        ),
        (
            {
                "type": "record",
                "name": "Line",
                "namespace": "other",
                "fields": [
                    {"name": "sku", "type": "string"},
                    {"name": "quantity", "type": "long"},
                    {"name": "note", "type": ["null", "string"]},
                    {"name": "more", "type": "int", "default": 0},
                ],
            },
            "start.line",
        ),
        (["null", {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}], {"a": 1}),
    ],
)
def test_a_value_that_fits_its_field_is_let_through(kind: Any, value: Any) -> None:
    assert field_codes(kind, value) == []


@pytest.mark.parametrize(
    ("code", "kind", "value"),
    [
        ("SK403", "string", "start.small"),
        ("SK403", "string", "start.raw"),
        ("SK403", "int", "start.large"),
        ("SK403", "int", 2**31),
        ("SK403", "int", "2147483648"),
        ("SK403", "int", "start.double"),
        ("SK403", "int", 1.5),
        ("SK403", "long", "start.millis"),
        ("SK403", "float", "start.double"),
        ("SK403", "float", "start.small"),
        ("SK403", "double", "start.large"),
        ("SK403", "double", "start.small + 1"),
        ("SK403", "boolean", "start.small"),
        ("SK403", "bytes", "start.text"),
        ("SK403", {"type": "fixed", "name": "F", "size": 5}, "start.hash"),
        ("SK403", {"type": "fixed", "name": "F", "size": 4}, "start.raw"),
        ("SK403", ["string", "boolean"], "start.either"),
        ("SK403", {"type": "enum", "name": "E", "symbols": ["RED"]}, "start.colour"),
        ("SK403", {"type": "enum", "name": "E", "symbols": ["RED"]}, "start.text"),
        ("SK404", {"type": "enum", "name": "E", "symbols": ["RED"]}, "'GREEN'"),
        ("SK404", {"type": "enum", "name": "E", "symbols": ["A"]}, "start.flag ? 'A' : 'B'"),
        ("SK403", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 1}, "start.price"),
        ("SK403", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}, "'1.23'"),
        ("SK403", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}, "start.small"),
        ("SK403", {"type": "string", "logicalType": "uuid"}, "'not a uuid'"),
        ("SK403", {"type": "string", "logicalType": "uuid"}, "start.day"),
        ("SK403", {"type": "int", "logicalType": "date"}, "start.millis"),
        ("SK403", {"type": "int", "logicalType": "date"}, "'2026-02-30'"),
        ("SK403", {"type": "long", "logicalType": "timestamp-millis"}, "start.micros"),
        ("SK403", {"type": "long", "logicalType": "timestamp-millis"}, "start.large"),
        ("SK403", {"type": "long", "logicalType": "timestamp-millis"}, "start.local"),
        ("SK407", {"type": "string", "logicalType": "uuid"}, "start.text"),
        ("SK407", {"type": "string", "logicalType": "uuid"}, "start.text + 'x'"),
        ("SK403", {"type": "array", "items": "string"}, "start.numbers"),
        ("SK403", {"type": "array", "items": "string"}, "start.lines.map(l, l.quantity)"),
        ("SK309", {"type": "array", "items": "string"}, "start.lines.map(l, l.note)"),
        ("SK403", {"type": "array", "items": "string"}, "start.gaps"),
        ("SK403", {"type": "array", "items": "string"}, ["start.small"]),
        ("SK403", {"type": "array", "items": "string"}, {"a": 1}),
        ("SK403", {"type": "map", "values": "string"}, "start.lines"),
        ("SK403", {"type": "map", "values": "string"}, ["'a'"]),
        ("SK403", {"type": "map", "values": "string"}, "{1: 'a'}"),
        ("SK403", {"type": "map", "values": "string"}, {"a": "start.small"}),
        ("SK403", "string", {"a": 1}),
        ("SK403", "string", "start.line"),
        ("SK401", {"type": "record", "name": "R", "fields": []}, {"a": 1}),
        ("SK401", {"type": "record", "name": "R", "fields": []}, "{'a': 1}"),
        ("SK402", {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}, {}),
        ("SK402", {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}, "{'b': 1}"),
        ("SK403", {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}, "start.tags"),
        ("SK403", {"type": "record", "name": "R", "fields": [{"name": "sku", "type": "string"}]}, "start.line"),
        ("SK403", {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}, 5),
        ("SK403", "string", "type(start.small)"),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_found(code: str, kind: Any, value: Any) -> None:
    assert code in field_codes(kind, value)


def test_every_rule_is_shown_broken() -> None:
    elsewhere = {"SK101", "SK102", "SK107", "SK302", "SK404", "SK407"}
    assert {code for code, *_ in RULES_BROKEN_AND_KEPT} | elsewhere == set(RULES)


def test_all_findings_come_at_once_and_in_order() -> None:
    found = findings(
        {"key": "start.txt", _WITH: "start.text", _SHIP: "start.o_text", "steps.ship.command": "test.Nope"}
    )
    assert [finding.code for finding in found] == sorted(finding.code for finding in found)
    assert {finding.code for finding in found} == {"SK301", "SK304", "SK309", "SK403"} - {"SK309"}
