"""The small form of `make prove PART=core-mutants`: one module's mutants, and whether the list of survivors is true."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.mutants import CORE, mutants_of
from tests.mutation.survivors import Explained, disagreements, explained
from tests.prove.core_mutants import prove

MODULE = "retry"


@pytest.mark.prove
@pytest.mark.slow
def test_every_mutant_of_a_module_is_noticed_or_explained() -> None:
    counts = prove([MODULE])
    assert counts["killed"] > 20
    assert counts["killed"] + counts["timed_out"] + counts["survived_and_explained"] == counts["mutants"]


def test_a_mutant_is_the_module_with_one_change() -> None:
    original = (CORE / f"{MODULE}.py").read_text(encoding="utf-8").splitlines()
    mutants = mutants_of(MODULE)
    assert len({mutant.key for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        changed = mutant.source.splitlines()
        assert len([line for line in changed if line not in original]) <= 1
        ast.parse(mutant.source)


@pytest.mark.parametrize("entry", explained(), ids=lambda entry: f"{entry.module}-{entry.place}")
def test_what_is_listed_stands_in_the_core_and_has_a_reason(entry: Explained) -> None:
    source = (CORE / f"{entry.module}.py").read_text(encoding="utf-8")
    lines = [line.strip() for line in _place(ast.parse(source), source, entry.place).splitlines()]
    before = [line[2:] for change in entry.changes for line in change.splitlines() if line.startswith("- ")]
    assert [line for line in before if line not in lines] == []
    assert before or entry.pattern
    assert len(entry.why) > 20


def _place(tree: ast.Module, source: str, place: str) -> str:
    """The source of a function or class by its qualified name, or of what is assigned to a name."""
    body: list[ast.stmt] = tree.body
    found: ast.stmt | None = None
    for name in place.split("."):
        found = next(one for one in body if name in _names(one))
        body = getattr(found, "body", [])
    assert found is not None
    return ast.get_source_segment(source, found) or ""


def _names(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case _:
            return []


def test_a_survivor_that_nobody_explains_and_an_entry_that_no_longer_holds_are_told() -> None:
    known = next(entry for entry in explained() if entry.module == MODULE)
    as_listed = [(known.module, known.place, change) for change in known.changes]
    new = (MODULE, "pause_ms", "- a\n+ b")
    assert list(disagreements(as_listed, [], [MODULE])) == []
    (told,) = disagreements([*as_listed, new], [], [MODULE])
    assert told.startswith("survived, and nobody says why")
    (told,) = disagreements([], as_listed, [MODULE])
    assert "a test notices it" in told
    (told,) = disagreements([], [new], [MODULE])
    assert "there is no such mutant" in told
