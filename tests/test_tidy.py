"""The house stays in order: sizes, one decision table, no paths of one machine, nothing put off."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from sagakit.core import events

ROOT = Path(__file__).parent.parent

LINES_MAX = {"sagakit/core": 3000, "sagakit/orchestrator": 1500}
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

# What users import. A name that goes in here stays; one that leaves breaks users.
PUBLIC_NAMES: dict[str, list[str]] = {
    "sagakit": [],
    "sagakit.participants": [
        "Context",
        "EventContext",
        "Formats",
        "HandlerError",
        "HandlersStuckError",
        "Rejected",
        "RuntimeSettings",
        "Service",
        "ServiceExchange",
        "ServiceRuntime",
    ],
    "sagakit.client": ["Client", "Composed", "Composer", "Sent"],
    "sagakit.testing": ["EmbeddedKafka", "EmbeddedPair", "KafkaCluster", "RealRegistry"],
}

# What stands below these directories is some machine's own; `usr`, `var`, `etc`, `opt` are alike in every container.
MACHINE_PATH = re.compile(r"(?<![\w.~}-])/(?:work|root|home|Users|tmp)/\w")
PUT_OFF = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")


@functools.cache
def tracked_files() -> list[Path]:
    """What belongs to the project: the files that git knows, and the new ones that it would not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def python_files(*folders: str) -> list[Path]:
    """The project's Python files under these folders."""
    roots = [ROOT / folder for folder in folders]
    return [
        path for path in tracked_files() if path.suffix == ".py" and any(path.is_relative_to(root) for root in roots)
    ]


def text_lines() -> Iterator[tuple[str, str]]:
    """Each line of each file written by hand, with where it stands."""
    for path in tracked_files():
        if path.name == "uv.lock":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), start=1):
            yield f"{path.relative_to(ROOT)}:{number}", line


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def nodes(*folders: str) -> Iterator[tuple[str, ast.AST]]:
    """Each syntax node under these folders, with where it stands."""
    for path in python_files(*folders):
        for node in ast.walk(parsed(path)):
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", node


def line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(("folder", "lines_max"), LINES_MAX.items())
def test_the_engine_stays_small(folder: str, lines_max: int) -> None:
    files = python_files(folder)
    assert files, f"no Python file under {folder}: has it moved?"
    assert sum(map(line_count, files)) <= lines_max


def test_no_file_is_too_long() -> None:
    files = python_files("sagakit", "services", "tests")
    too_long = {str(path.relative_to(ROOT)): count for path in files if (count := line_count(path)) > FILE_LINES_MAX}
    assert too_long == {}, f"longer than {FILE_LINES_MAX} lines; what are its two subjects?"


def test_no_function_is_too_long() -> None:
    too_long = {
        f"{where} {node.name}": count
        for where, node in nodes("sagakit", "services", "tests")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (count := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert too_long == {}, f"longer than {FUNCTION_LINES_MAX} lines"


EVENTS = {one.__name__ for one in get_args(events.Event)}


def test_events_are_told_apart_in_one_place() -> None:
    """What an event does is decided by one `match`; a second one would be a second opinion."""
    found = [
        f"{path.relative_to(ROOT)}:{line} {how}"
        for path in python_files("sagakit", "services")
        for line, how in event_switches(parsed(path))
    ]
    elsewhere = [place for place in found if not place.startswith("sagakit/core/decide.py:")]
    assert elsewhere == [], "what an event means is decided in sagakit/core/decide.py"
    assert len([place for place in found if place.endswith(" match")]) == 1, found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("match event:\n case Start(): ...\n case Reply(): ...", ["match"]),
        ("match one.input:\n case Start(): ...\n case Reply() | Control(): ...", ["match"]),
        ("match one:\n case events.Start(): ...\n case events.Reply(): ...", ["match"]),
        ("match one, two:\n case Start(), _: ...\n case Reply(), _: ...", ["match"]),
        ("def f(x):\n if isinstance(x, Start): ...\n elif isinstance(x, Reply | Control): ...", ["isinstance"]),
        (
            "def f(x):\n if isinstance(x.event, Start): return\n if isinstance(x.event, (Reply, Control)): ...",
            ["isinstance"],
        ),
        ("def f(x):\n return 1 if type(x) is Start else 2 if type(x) == Reply else 3", ["isinstance"]),
        ("match event:\n case Start(): ...\n case _: ...", []),
        ("match event:\n case Stop(): ...\n case Go(): ...", []),
        ("def f(x, y):\n if isinstance(x, Start): ...\n if isinstance(y, Reply): ...", []),
        ("def f(x):\n if isinstance(x, Start): ...\ndef g(x):\n if isinstance(x, Reply): ...", []),
        ("def f(x):\n if isinstance(x, Start | Reply): ...\n if isinstance(x, Start | Reply): ...", []),
    ],
)
def test_a_second_opinion_is_found_whatever_it_looks_like(code: str, found: list[str]) -> None:
    imports = "from sagakit.core import events\nfrom sagakit.core.events import Control, Reply, Start\n"
    assert [how for _, how in event_switches(ast.parse(imports + code))] == found


def event_switches(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Where a module tells event classes apart: by a `match`, or by tests of one thing's class within one function."""
    names = event_names(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Match):
            classes = [
                one.cls for case in node.cases for one in ast.walk(case.pattern) if isinstance(one, ast.MatchClass)
            ]
            if len({name for one in classes if (name := ast.unparse(one)) in names}) > 1:
                yield node.lineno, "match"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            asked: dict[str, set[frozenset[str]]] = {}
            for subject, classes_asked in class_tests(node):
                if told := frozenset(classes_asked) & names:
                    asked.setdefault(subject, set()).add(told)
            if any(len(answers) > 1 for answers in asked.values()):
                yield node.lineno, "isinstance"


def event_names(module: ast.Module) -> frozenset[str]:
    """What a module calls the event classes."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            for one in node.names:
                if node.module == "sagakit.core.events" and one.name in EVENTS:
                    names.add(one.asname or one.name)
                elif node.module == "sagakit.core" and one.name == "events":
                    names |= {f"{one.asname or one.name}.{name}" for name in EVENTS}
        elif isinstance(node, ast.Import):
            for one in node.names:
                if one.name == "sagakit.core.events":
                    names |= {f"{one.asname or one.name}.{name}" for name in EVENTS}
        elif isinstance(node, ast.ClassDef) and node.name in EVENTS:
            names.add(node.name)
    return frozenset(names)


def class_tests(function: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """What a function asks the class of, and which classes it names; both as they are written."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            yield ast.unparse(node.args[0]), [ast.unparse(one) for one in ast.walk(node.args[1])]
        elif isinstance(node, ast.Compare) and ast.unparse(node.left).startswith("type("):
            yield ast.unparse(node.left), [ast.unparse(one) for one in ast.walk(node.comparators[0])]


def test_no_paths_of_one_machine() -> None:
    found = [f"{where}: {line.strip()}" for where, line in text_lines() if MACHINE_PATH.search(line)]
    assert found == []


def test_nothing_is_put_off() -> None:
    found = [f"{where}: {line.strip()}" for where, line in text_lines() if PUT_OFF.search(line)]
    assert found == [], "do it, or open an issue"


def test_tests_await_events_and_do_not_sleep() -> None:
    sleeps = [
        where
        for where, node in nodes("tests")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep", "asyncio.sleep"}
        if ast.unparse(node) != "asyncio.sleep(0)"  # lets others run, and waits for nothing
    ]
    assert sleeps == []


def test_package_files_hold_no_logic() -> None:
    """An `__init__` tells what the package is and re-exports: importing one module must not run another's code."""
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    logic = [
        f"{path.relative_to(ROOT)}:{statement.lineno}"
        for path in python_files("sagakit", "services")
        if path.name == "__init__.py"
        for statement in parsed(path).body
        if not isinstance(statement, allowed) and not is_docstring(statement)
    ]
    assert logic == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files("sagakit", "services", "tests")
        if path.stat().st_size > 0 and ast.get_docstring(parsed(path)) is None
    ]
    assert silent == []


def test_public_names_are_pinned() -> None:
    exported = {name: public_names(importlib.import_module(name)) for name in PUBLIC_NAMES}
    assert exported == PUBLIC_NAMES
    assert sum(len(names) for names in PUBLIC_NAMES.values()) < 25


def public_names(module: ModuleType) -> list[str]:
    """What a package offers by name: not its modules, nothing private."""
    return sorted(name for name, value in vars(module).items() if name[0] != "_" and not isinstance(value, ModuleType))


def is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
