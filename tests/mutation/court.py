"""Each mutant in a process of its own, before the tests of the core: does any of them notice?

This process has all imported that the tests import, but nothing of sagakit; a mutant is a fork of it that imports
sagakit with one module changed. So a change is in force wherever it stands, also in tables and in what is made when a
module is imported; and a mutant costs a tenth of a second and the tests up to the first that fails.
"""

import gc
import importlib
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import IO, Final

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutation.mutants import CORE, ROOT, Mutant

TESTS: Final = (
    "tests/histories/test_histories.py",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/unit/core").glob("test_*.py")),
    "tests/property/test_core_total.py",
    "tests/property/test_core_machine.py",
)
"""The kept histories first, which notice most in the shortest time; the properties, which take longest, last."""

TEST_CPU_S: Final = 20
"""How long one test may compute. The longest takes two seconds: a mutant that takes more has no end."""

MEMORY_BYTES: Final = 2 << 30

EXAMPLES: Final = 20
"""Of each property. They are derived from the test, not drawn, so each run gives the same verdicts."""

# What `pytest.main` returns.
_PASSED, _FAILED, _NOT_IMPORTED = 0, 1, 2


class Verdict(Enum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A mutant, what became of it, and which test noticed."""

    mutant: Mutant
    verdict: Verdict
    by: str


class CourtError(Exception):
    """The tests cannot judge: they fail without any mutant, or did not run to their end."""


def open_court() -> None:
    """Import whatever the tests import, but for what is ours.

    Raises:
        CourtError: sagakit was imported already, so a mutant's module would not take effect.
    """
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # Hundreds of processes are to find what the first one compiled.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    listing = subprocess.run(
        [sys.executable, "-c", _IMPORTED_BY_TESTS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in json.loads(listing.stdout):
        with suppress(ImportError):  # a module that others make up while they are imported
            importlib.import_module(name)
    ours = [name for name in sys.modules if name.partition(".")[0] == "sagakit"]
    if ours:
        raise CourtError(f"{ours[0]} must not be imported before a mutant is: start `python -m tests.mutation`")
    settings.register_profile(
        "mutation",
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=EXAMPLES,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutation")


_IMPORTED_BY_TESTS: Final = f"""
import importlib, json, pathlib, sys
sys.path.insert(0, "")
for path in {TESTS!r}:
    importlib.import_module(".".join(pathlib.Path(path).with_suffix("").parts))
ours = ("__main__", "sagakit", "services", "tests")
print(json.dumps([name for name in sys.modules if name.partition(".")[0] not in ours]))
"""


def judge(mutants: Iterable[Mutant], workers: int) -> Iterator[Judged]:
    """The verdict on each mutant, as they are reached; `workers` of them at a time.

    Raises:
        CourtError: the tests fail as the core stands, or did not run to their end with some mutant.
    """
    gc.freeze()
    verdict, by = _verdict(*_wait(_begin(None, TESTS)))
    if verdict is not Verdict.SURVIVED:
        raise CourtError(f"the tests of the core fail without any mutant: {verdict.value} by {by}")
    running: dict[int, tuple[Mutant, IO[str]]] = {}
    noticed: defaultdict[str, Counter[str]] = defaultdict(Counter)
    """How many mutants of each module each file of tests has noticed so far: the one with the most is asked first."""

    def next_verdict() -> Judged:
        judged = _next(running)
        noticed[judged.mutant.module][judged.by.partition("::")[0]] += 1
        return judged

    try:
        for mutant in mutants:
            if len(running) >= workers:
                yield next_verdict()
            tests = sorted(TESTS, key=lambda file: -noticed[mutant.module][file])
            pid, told = _begin(mutant, tests)
            running[pid] = mutant, told
        while running:
            yield next_verdict()
    finally:
        for pid, (_, told) in running.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            told.close()


def _next(running: dict[int, tuple[Mutant, IO[str]]]) -> Judged:
    pid, status = os.wait()
    mutant, told = running.pop(pid)
    verdict, by = _verdict(status, _read(told))
    return Judged(mutant=mutant, verdict=verdict, by=by)


def _wait(begun: tuple[int, IO[str]]) -> tuple[int, str]:
    pid, told = begun
    _, status = os.waitpid(pid, 0)
    return status, _read(told)


def _read(told: IO[str]) -> str:
    with told:
        return told.read().strip()


def _verdict(status: int, told: str) -> tuple[Verdict, str]:
    if os.WIFSIGNALED(status):
        number = signal.Signals(os.WTERMSIG(status))
        if number is signal.SIGPROF:
            return Verdict.TIMED_OUT, told
        raise CourtError(f"the tests were ended by {number.name}, and so give no verdict")
    code = os.WEXITSTATUS(status)
    if code == _PASSED:
        return Verdict.SURVIVED, ""
    if code in (_FAILED, _NOT_IMPORTED):
        return Verdict.KILLED, told
    raise CourtError(f"pytest gives {code}, and so no verdict: {told}")


def _begin(mutant: Mutant | None, tests: Sequence[str]) -> tuple[int, IO[str]]:
    """Fork a process that runs the tests with this mutant in place; its id, and where it names the test that failed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, os.fdopen(reading, encoding="utf-8")
    code = 70
    try:
        os.close(reading)
        code = _run_tests(mutant, tests, writing)
    finally:
        os._exit(code)


def _run_tests(mutant: Mutant | None, tests: Sequence[str], telling: int) -> int:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.chdir(ROOT)
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
    arguments = ["-x", "-q", "-c", os.devnull, "--rootdir=.", "--noconftest", "--import-mode=importlib"]
    arguments += ["--assert=plain", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore"]
    clerk = _Clerk(telling)
    # Most mutants are noticed by the first two files: nothing else is imported for those.
    code = int(pytest.main([*arguments, *tests[:2]], plugins=[clerk]))
    return code if code != _PASSED else int(pytest.main([*arguments, *tests[2:]], plugins=[clerk]))


class _Clerk:
    """Gives each test its time, and notes which one failed."""

    def __init__(self, telling: int) -> None:
        self._telling = telling
        self._allow()

    def _allow(self) -> None:
        # A timer of the kernel on the time computed: a busy machine is not a mutant's fault, and no code can miss it.
        signal.setitimer(signal.ITIMER_PROF, TEST_CPU_S)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self._allow()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A part of a test is over."""
        if report.failed:
            os.write(self._telling, report.nodeid.encode())

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file of tests was imported, or not."""
        if report.failed:
            os.write(self._telling, f"import of {report.nodeid} ".encode())


class _Finder:
    """Finds one module, changed."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """The module's specification if it is the one, else None: the others are found as always."""
        if name != f"sagakit.core.{self._mutant.module}":
            return None
        path = str(CORE / f"{self._mutant.module}.py")
        return importlib.util.spec_from_file_location(name, path, loader=_Loader(name, path, self._mutant.source))


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from a changed source."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        """Compile what is to stand in the file; nothing is cached."""
        return compile(self._source, self.path, "exec", dont_inherit=True)
