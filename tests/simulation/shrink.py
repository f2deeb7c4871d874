"""From a failing world to the smallest one of its kind that still fails: fewer faults, processes and orders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.simulation.run import Ran, run_seed

SMALLER: Final[tuple[Mapping[str, Any], ...]] = (
    *({name: 0} for name in ("disturbances", "large", "twice", "late", "fails", "refuses", "silent")),
    *({name: 0} for name in ("skew_ms", "unknown", "stalls", "crashes")),
    *({name: 1} for name in ("instances", "partitions", "orders")),
    {"orders": 2},
    {"faulty_ms": 2_000},
    {"faulty_ms": 8_000},
)
"""What is tried, in this order, until none of it makes a world that fails any more."""


def shrink(broken: Ran, tries: int = 10) -> Ran:
    """A smaller world that fails, or `broken` itself.

    A change of the plan draws the rest of the world anew, so that the fault may need another seed: `tries` of them are
    looked at for each change, from the seed that failed on.
    """
    smallest = broken
    while True:
        found = next((one for change in SMALLER if (one := _fails(smallest, change, tries)) is not None), None)
        if found is None:
            return smallest
        smallest = found


def _fails(broken: Ran, change: Mapping[str, Any], tries: int) -> Ran | None:
    changes = {**broken.changes, **change}
    ((name, value),) = change.items()
    if broken.changes.get(name, value + 1) <= value:
        return None
    for seed in range(broken.seed, broken.seed + tries):
        ran = run_seed(seed, changes)
        if ran.problems:
            return ran
    return None
