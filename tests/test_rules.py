"""The rules of exactly-once and the tests that show them: `docs/exactly-once.md` names neither without the other."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "exactly-once.md").read_text(encoding="utf-8")

RULES = range(1, 27)

NOT_BUILT = {19}
"""Rules about parts that do not exist yet, so no test can show them. Whoever builds the part takes its rule out."""

MUTANTS_FILE = "tests/simulation/mutants.py"

NAMED = re.compile(r"\bRules? (\d+(?:(?:, | and )\d+)*)")


def sections() -> dict[int, str]:
    """What the page says of each rule."""
    parts = re.split(r"^### (\d+)\. ", PAGE, flags=re.MULTILINE)[1:]
    numbers = [int(number) for number in parts[::2]]
    assert len(numbers) == len(set(numbers)), "a rule stands twice"
    return {number: text.split("\n## ")[0] for number, text in zip(numbers, parts[1::2], strict=True)}


SECTIONS = sections()


def shown_by(rule: int) -> list[str]:
    """The tests that the page gives for a rule."""
    return re.findall(r"^- `([^`]+)`$", SECTIONS[rule], re.MULTILINE)


def rules_named(docstring: str | None) -> set[int]:
    """The rules that a docstring names: `Rule 14`, `Rules 2 and 3`, `Rules 2, 3 and 16`."""
    return {int(number) for numbers in NAMED.findall(docstring or "") for number in re.findall(r"\d+", numbers)}


def functions(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, set[int]]]:
    """Each function and method, and which rules its docstring or that of its class names."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            of_class = rules_named(ast.get_docstring(node))
            for name, rules in functions(node.body, f"{within}{node.name}::"):
                yield name, rules | of_class
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{within}{node.name}", rules_named(ast.get_docstring(node))


@cache
def in_file(path: Path) -> dict[str, set[int]]:
    """The functions of a file that can fail when a rule is broken, and the rules that they name."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    of_module = rules_named(ast.get_docstring(tree))
    found = {name: rules | of_module for name, rules in functions(tree.body)}
    if path == ROOT / MUTANTS_FILE:
        return {name: rules for name, rules in found.items() if name in MUTANTS}
    return {name: rules for name, rules in found.items() if name.rpartition("::")[2].startswith("test_")}


def test_every_rule_is_on_the_page_in_order() -> None:
    assert list(SECTIONS) == list(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_told_in_words_and_shown_by_tests_or_said_to_be_missing(rule: int) -> None:
    heading, _, text = SECTIONS[rule].partition("\n")
    words = [line for line in text.splitlines() if line and not line.startswith("- ")]
    assert heading
    assert len(words) >= 2, "what goes wrong without it, and what is done about it"
    assert bool(shown_by(rule)) is (rule not in NOT_BUILT)
    assert ("**Not built yet:**" in text) is (rule in NOT_BUILT)


@pytest.mark.parametrize("rule", sorted(set(RULES) - NOT_BUILT))
def test_the_tests_of_a_rule_exist_and_name_it(rule: int) -> None:
    named = shown_by(rule)
    assert len(named) == len(set(named))
    for one in named:
        path, _, name = one.partition("::")
        assert (ROOT / path).is_file(), f"there is no {path}"
        known = in_file(ROOT / path)
        assert name in known, f"{path} has no test (and no known defect) {name}"
        assert rule in known[name], f"the docstring of {one} does not say `Rule {rule}`"


def test_every_test_that_names_a_rule_is_on_the_page() -> None:
    listed = {rule: set(shown_by(rule)) for rule in RULES}
    missing: defaultdict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path == Path(__file__):
            continue
        for name, rules in in_file(path).items():
            one = f"{path.relative_to(ROOT).as_posix()}::{name}"
            for rule in rules:
                assert rule in RULES, f"{one}: there is no rule {rule}"
                if one not in listed[rule]:
                    missing[rule].append(one)
    assert missing == {}


def test_rules_are_named_in_one_form() -> None:
    """Named in another form, a rule would not be looked for; and a test's name must not tell of another one."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                stray = re.findall(r"\brules? \d+", ast.get_docstring(node) or "")
                assert stray == [], f"{path}: say `Rule <number>`"
        for name, rules in in_file(path).items():
            numbers = re.match(r"(?:.*::)?test_rules?((?:_and_\d+|_\d+)+)_", name)
            assert numbers is None or {int(one) for one in re.findall(r"\d+", numbers[1])} <= rules, f"{path}::{name}"


def test_the_form_is_understood() -> None:
    assert rules_named("Rule 14: a reply. Rules 2, 3 and 16 too, and Rules 4 and 5.") == {2, 3, 4, 5, 14, 16}
    assert rules_named("The rule of three; rules 7.") == set()
