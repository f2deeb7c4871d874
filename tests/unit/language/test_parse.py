"""Texts to documents: every error at its place, all at once."""

import textwrap

import pytest

from sagakit.language.parse import Parsed, parse
from sagakit.language.source import Source, load

GOOD = """\
saga: take-order   # a comment
version: 1
owner: team
start: test.Order
on: orders.events
key: start.text
steps:
  reserve: {service: inventory, command: test.Reserve, timeout: 5s, with: {order_id: start.text}}
"""


def places(text: str) -> list[tuple[str, int, int]]:
    result = parse(textwrap.dedent(text), "file.yaml")
    assert isinstance(result, list), result
    assert all(finding.file == "file.yaml" for finding in result)
    return [(finding.code, finding.line, finding.column) for finding in result]


def test_a_good_text_is_read_with_its_defaults() -> None:
    parsed = parse(GOOD)
    assert isinstance(parsed, Parsed)
    document = parsed.document
    assert (document.saga, document.on, document.again, document.dedupe) == (
        "take-order",
        "orders.events",
        "never",
        3_600_000,
    )
    assert document.steps["reserve"].timeout == 5_000
    assert document.steps["reserve"].retry_policy.attempts == 3


def test_yaml_is_read_as_version_1_2() -> None:
    # In YAML 1.1 `on` and `yes` are booleans, and 010 is eight.
    assert load("on: yes\nn: 010\nh: 0x10\nt: 2026-11-23\nf: .inf\nz: ~", "f").data == {
        "on": "yes",
        "n": 10,
        "h": 16,
        "t": "2026-11-23",
        "f": float("inf"),
        "z": None,
    }


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: [1,\nb: 2", 2, 5),
        ("saga: x\n\tversion: 1", 2, 1),
        ("saga: *nothing", 1, 7),
        ("saga: 'x", 1, 9),
        ("", 1, 1),
        ("a: 1\n---\nb: 2", 2, 1),
        ("a: \x00", 1, 1),
        ("saga: &a [*a]", 1, 7),
        ("? [a]\n: b", 1, 3),
        ("saga: !custom x", 1, 7),
        ("saga: " + "[" * 100 + "]" * 100, 1, 71),
        ("saga: " + "[" * 20_000 + "]" * 20_000, 1, 1),
    ],
)
def test_what_is_not_yaml_is_found_at_its_place(text: str, line: int, column: int) -> None:
    assert ("SK101", line, column) in places(text)


def test_aliases_that_expand_without_bound_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert places("\n".join(lines))[0][0] == "SK101"


def test_an_anchor_that_is_set_again_is_no_error() -> None:
    """The library warns of it; the text is YAML all the same, and its last value counts."""
    loaded = load("a: &x 1\nb: &x 2\nc: *x\n", "f.yaml")
    assert (loaded.findings, loaded.data) == ((), {"a": 1, "b": 2, "c": 2})


def test_a_key_that_stands_twice_is_found_at_its_second_place() -> None:
    text = GOOD + "  reserve: {service: a, command: test.Ship, timeout: 1s}\nversion: 2\n"
    assert places(text) == [("SK102", 9, 3), ("SK102", 10, 1)]


def test_all_errors_come_at_once_each_at_its_place() -> None:
    assert places(
        """\
        saga: Take Order
        version: "1"
        onwer: team
        start: test.Order
        key: 5
        deadline: 15
        steps:
          reserve:
            service: inventory
            comand: test.Reserve
            retry: {attempts: 0, bakoff: 1s}
            after: reserve
            rejects: [1]
            budget: {p99: 1x, failures: 200%}
        """
    ) == [
        ("SK104", 1, 1),
        ("SK106", 1, 7),
        ("SK105", 2, 10),
        ("SK103", 3, 1),
        ("SK105", 5, 6),
        ("SK105", 6, 11),
        ("SK104", 8, 3),
        ("SK104", 8, 3),
        ("SK103", 10, 5),
        ("SK105", 11, 23),
        ("SK103", 11, 26),
        ("SK105", 12, 12),
        ("SK105", 13, 15),
        ("SK105", 14, 19),
        ("SK105", 14, 33),
    ]


@pytest.mark.parametrize("text", ["5", "[]", "text", "null"])
def test_a_definition_is_a_mapping(text: str) -> None:
    assert places(text) == [("SK105", 1, 1)]


def test_an_unknown_key_is_told_what_it_was_probably_meant_to_be() -> None:
    result = parse(GOOD.replace("timeout: 5s", "timeout: 5s, compensat: null").replace("owner", "ownr"))
    assert isinstance(result, list)
    remedies = {finding.path: finding.remedy for finding in result}
    assert remedies["ownr"] == "Did you mean `owner`?"
    assert remedies["steps.reserve.compensat"] == "Did you mean `compensate`?"


@pytest.mark.parametrize(
    ("yaml", "offset", "place"),
    [
        ("k: start.x + 1", 6, (1, 10)),
        ("k: 'start.x + ''a'''", 10, (1, 15)),
        ('k: "start.\\"x\\""', 7, (1, 13)),
        ("k: |\n  start.x\n  + y", 10, (3, 5)),
        ("k: >-\n  start.x\n  + y", 10, (3, 5)),
        ("k:\n  - a\n  - start.x", 0, (3, 5)),
    ],
)
def test_a_character_of_an_expression_is_found_in_the_text(yaml: str, offset: int, place: tuple[int, int]) -> None:
    source = load(yaml, "f").source
    path: tuple[str | int, ...] = ("k", 1) if "- a" in yaml else ("k",)
    assert source.position(path, offset=offset) == place


def test_what_has_no_text_has_no_place() -> None:
    finding = Source(file="built").finding("SK104", ("steps", "reserve", "after", 0), "wrong", "Mend it.")
    assert (finding.line, finding.column) == (0, 0)
    assert str(finding) == "built steps.reserve.after[0]: error SK104: wrong. Mend it."
