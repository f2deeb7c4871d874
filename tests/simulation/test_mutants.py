"""Each known defect is found by some seed of the default run."""

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
    for seed in range(SEEDS):
        ran = run_seed(seed)
        if ran.problems:
            return tell(f"{name}: found by seed {seed}: {ran.problems[0].strip().splitlines()[-1][:160]}")
    pytest.fail(f"none of {SEEDS} seeds finds the defect: {MUTANTS[name].__doc__}")
