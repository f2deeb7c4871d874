"""One seed: its world is run to rest, then everything is compared."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.checks import gather, problems
from tests.simulation.people import world_of
from tests.simulation.world import RestlessError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a seed came to. `steps` counts cycles begun and points passed; `happened` what was provoked, how often."""

    seed: int
    problems: tuple[str, ...]
    steps: int
    happened: dict[str, int]
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def replay(self) -> str:
        """The environment in which the tests of this folder run this world alone."""
        plan = f" SAGAKIT_SIMULATION_PLAN='{json.dumps(dict(self.changes))}'" if self.changes else ""
        return f"SAGAKIT_SIMULATION_SEED={self.seed}{plan}"

    def __str__(self) -> str:
        told = "\n".join(self.problems[:10])
        return f"seed {self.seed} (replay: {self.replay}), {self.happened}\n{told}"


def run_seed(seed: int, changes: Mapping[str, Any] | None = None) -> Ran:
    """Run one seed, with `changes` to its plan.

    An exception that leaves the loop is a problem like any other: it would end the process.
    """
    world, services, _ = world_of(seed, changes)
    found: tuple[str, ...] = ()
    try:
        try:
            world.run()
        except RestlessError as error:
            found = (str(error),)
        found = (*problems(gather(world, services)), *found)
    except Exception:  # noqa: BLE001 - nothing is swallowed: it is the finding
        found = (traceback.format_exc(),)
    return Ran(seed=seed, problems=found, steps=world.steps, happened=world.happened, changes=changes or {})
