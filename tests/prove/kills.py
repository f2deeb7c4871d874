"""Kills: processes die by SIGKILL at the worst places under load, and nothing is lost, nothing happens twice."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sagakit.demo.deaths import answered, unproven
from sagakit.demo.processes import Kills
from sagakit.failpoints import POINTS
from services.books import read_shop
from tests.prove.evidence import examine, transitions
from tests.prove.house import House, require
from tests.prove.shop import Cast, Shop

PLACES: Final = (
    "orchestrator.transaction-open",
    "participant.in-handler",
    "participant.between-effect-and-reply",
    "orchestrator.in-commit",
    "orchestrator.in-restore",
    "orchestrator.in-rebalance",
    "orchestrator.before-commit",
    "participant.in-local-transaction",
    "orchestrator.after-commit",
    "participant.after-reply",
)
"""Every place where a process can be made to die: those without which a run shows least come first."""

_AT_START: Final = frozenset({"orchestrator.in-restore", "orchestrator.in-rebalance"})
"""Passed before a process has done anything: armed only in those that take over from one that was killed."""

PER_SECOND: Final = 40.0
_SECONDS_PER_KILL: Final = 4.0
_EACH_MIN: Final = 25
"""Of a full run, how many have to die at each place."""


def quotas(kills: int) -> Mapping[str, int]:
    """How many are to die at each place."""
    return {place: kills // len(PLACES) + (number < kills % len(PLACES)) for number, place in enumerate(PLACES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Kills):
    """Kills with a number for each place, so that none is left out by chance."""

    quotas: Mapping[str, int]

    def environment(self, who: str, *, again: bool) -> Mapping[str, str]:
        """See `Kills.environment`."""
        armed = []
        for number, (place, most) in enumerate(sorted(self.quotas.items())):
            if not most or (place in _AT_START and not again):
                continue
            # Not all at once, and not always at the same pass; a process works a while before it dies.
            when = "@0.5" if place in _AT_START else "@0.1"
            after = "" if place in _AT_START else f":after={5 + 7 * (number % 4)}"
            armed.append(f"{place}=kill{when}:{self.seed}:limit={most}{after}")
        return {
            "SAGAKIT_FAILPOINTS": ";".join(armed),
            "SAGAKIT_FAILPOINT_LOG": str(self.log),
            "SAGAKIT_FAILPOINT_WHO": who,
        }


def prove(house: House, folder: Path, *, prefix: str, kills: int, sagas: int = 0, seed: int = 1) -> dict[str, Any]:
    """Kill that many over that many sagas at least, each place in its turn; then compare backlog, ledgers, state and
    inbox, saga by saga.

    Each death within a command has to be what it says, by the ledger of the service that died.
    """
    assert set(PLACES) == POINTS
    plan = Planned(count=kills, seed=seed, log=folder / "kills.jsonl", quotas=quotas(kills))
    began = time.monotonic()
    with Shop(house, folder, prefix, Cast(kills=plan, late_carrier=True, seed=seed)) as shop:
        shop.load(
            PER_SECOND,
            lambda: len(shop.troupe.deaths()) >= kills and len(shop.placed) >= sagas,
            f"{kills} processes have been killed and {sagas} orders placed",
            timeout_s=90 + max(_SECONDS_PER_KILL * kills, 1.5 * sagas / PER_SECOND),
        )
        shop.place(20)  # whoever was started last has something to do, too
        shop.settle(120)
        at = Counter(death.point for death in shop.troupe.deaths())
        who = Counter(death.who for death in shop.troupe.deaths())
        counts = examine(shop)
        doubts = unproven(shop.troupe.deaths(), read_shop(shop.ledgers).ledgers, set(answered(transitions(shop))))
    require(not doubts, "kills that did not hit what they were meant to hit:\n  " + "\n  ".join(doubts))
    require(len(at) == min(kills, len(PLACES)), f"not every place was reached: {dict(at)}")
    least = min(_EACH_MIN, kills // len(PLACES))
    seldom = [f"{place}: {at[place]}" for place in PLACES if at[place] < least]
    require(not seldom, f"fewer than {least} were killed at {', '.join(seldom)}, so too little was shown of it")
    return {
        "kills": sum(at.values()),
        "at": dict(at),
        "who": dict(who),
        **counts,
        "took_s": round(time.monotonic() - began),
    }
