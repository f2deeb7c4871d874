"""The compiled wheel does what the source does: its replay law, its core, its codec and its loop, by the same tests."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
COMPILED: Final = ROOT / ".cache" / "compiled"

TESTS: Final = (
    "tests/histories",
    "tests/unit/core",
    "tests/unit/contracts",
    "tests/unit/orchestrator",
    "tests/property/test_core_machine.py",
    "tests/property/test_contracts_core.py",
    "tests/simulation/test_simulation.py",
)

SOURCE_ONLY: Final = (
    "tests/unit/orchestrator/test_exactly_once.py::test_nothing_is_polled_between_a_decision_and_its_commit",
    "tests/simulation/test_simulation.py::test_a_failing_world_shrinks_to_a_smaller_one_that_still_fails",
)
"""Tests that put something in the place of a method, which compiled code does not look up."""

pytestmark = pytest.mark.acceptance


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: the compiled wheel is NOT PROVEN here")
def test_the_compiled_wheel_passes_the_tests_of_the_source() -> None:
    subprocess.run(["make", "compiled"], cwd=ROOT, check=True)
    tree, python = COMPILED / "tree", COMPILED / "venv" / "bin" / "python"
    asked = "import sagakit.core.decide as one; print(one.__file__)"
    where = subprocess.run([python, "-c", asked], cwd=tree, check=True, capture_output=True, text=True).stdout.strip()
    assert where.endswith(".so"), f"this is not compiled: {where}"
    selected = [*TESTS, *(f"--deselect={one}" for one in SOURCE_ONLY)]
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pyproject.toml", "--rootdir", ".", *selected],
        cwd=tree,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout
