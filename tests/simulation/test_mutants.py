"""Each known defect is found by some seed.

Nearly all are found by the first few; those that need a rare meeting of things by one of three times as many seeds as
the default run has, since every change of the loop draws all worlds anew.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import run_seed
from tests.simulation.test_simulation import SEEDS


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.timeout(600)
def test_a_known_defect_is_found(name: str, monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]) -> None:
    MUTANTS[name](monkeypatch)
    for seed in range(3 * SEEDS):
        ran = run_seed(seed)
        if ran.problems:
            lines = ran.problems[0].strip().splitlines()
            what = lines[-1 if lines[0].startswith("Traceback") else 0]
            return tell(f"{name}: found by seed {seed}: {what[:160]}")
    pytest.fail(f"none of {3 * SEEDS} seeds finds the defect: {MUTANTS[name].__doc__}")
