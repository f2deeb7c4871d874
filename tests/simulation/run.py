"""One seed: its world is run to rest, then everything is compared."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

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

    def __str__(self) -> str:
        told = "\n".join(self.problems[:10])
        return f"seed {self.seed} (replay: SAGAKIT_SIMULATION_SEED={self.seed}), {self.happened}\n{told}"


def run_seed(seed: int) -> Ran:
    """Run one seed. An exception that leaves the loop is a problem like any other: it would end the process."""
    world, services, _ = world_of(seed)
    found: tuple[str, ...] = ()
    try:
        try:
            world.run()
        except RestlessError as error:
            found = (str(error),)
        found = (*problems(gather(world, services)), *found)
    except Exception:  # noqa: BLE001 - nothing is swallowed: it is the finding
        found = (traceback.format_exc(),)
    return Ran(seed=seed, problems=found, steps=world.steps, happened=world.happened)
