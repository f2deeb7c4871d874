"""Seeds of the simulated world: each has to come to rest with everything in order.

`SAGAKIT_SIMULATION_SEEDS=<n>` runs more of them, `SAGAKIT_SIMULATION_SEED=<n>` one alone: a failing seed replays, with
`SAGAKIT_SIMULATION_PLAN=<JSON>` as the smaller world that `make prove PART=simulation` made of it.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.simulation.mutants import memory_before_commit
from tests.simulation.run import Ran, run_seed
from tests.simulation.shrink import shrink

SEEDS = int(os.environ.get("SAGAKIT_SIMULATION_SEEDS", "300"))

PROVOKED = (
    "stall",
    "unknown commit",
    "aborted commit",
    "culprit",
    "crash transaction-open",
    "crash before-commit",
    "crash after-commit",
    "crash before-restore",
    "crash between cycles",
    "leave",
    "no cluster",
    "no registry",
    "no services",
    "rebalance",
    "compact",
    "purge",
    "reply lost",
    "reply twice",
    "command twice",
    "message twice",
    "large note",
    "skew",
)
"""What the default run has to have provoked: a run in which it never happened has proven nothing of it."""


def seeds() -> range:
    """The seeds of this run."""
    one = os.environ.get("SAGAKIT_SIMULATION_SEED")
    return range(int(one), int(one) + 1) if one else range(SEEDS)


@pytest.mark.timeout(3_600)
def test_every_world_comes_to_rest_with_everything_in_order(tell: Callable[[str], None]) -> None:
    changes = json.loads(os.environ.get("SAGAKIT_SIMULATION_PLAN", "{}"))
    began = time.perf_counter()
    happened: Counter[str] = Counter()
    steps, broken = 0, list[Ran]()
    for seed in seeds():
        ran = run_seed(seed, changes)
        steps += ran.steps
        happened.update(ran.happened)
        if ran.problems:
            broken.append(ran)
    took_s = time.perf_counter() - began
    tell(f"simulation: {len(seeds())} worlds, {steps} steps, {steps / took_s:,.0f} steps a second")
    assert not broken, f"{len(broken)} seeds: {[ran.seed for ran in broken]}\n" + "\n\n".join(map(str, broken[:3]))
    if len(seeds()) >= 100:
        assert [what for what in PROVOKED if not happened[what]] == []


def test_a_seed_is_one_world() -> None:
    """The same seed does the same again, so that a failing one can be looked at."""
    first, second = run_seed(7), run_seed(7)
    assert (first.steps, first.happened) == (second.steps, second.happened)


def test_a_failing_world_shrinks_to_a_smaller_one_that_still_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    memory_before_commit(monkeypatch)
    broken = next(ran for ran in map(run_seed, range(3 * SEEDS)) if ran.problems)
    smaller = shrink(broken, tries=2)
    assert smaller.problems
    assert smaller.changes
    assert run_seed(smaller.seed, smaller.changes).problems == smaller.problems
