"""Somebody is away for minutes under load, and comes back: the participant, the registry, the broker.

Where a step's policy has time left, nothing is undone that patience would have saved: every saga that turns back was
refused. And what has piled up holds up nobody who has no part in it: the others here are the orders that their first
step refuses, since they never come to the one that is away.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from sagakit.core import transitions as t
from sagakit.core.transitions import FailureKind
from sagakit.demo.stage import DEFINITION_FILE
from tests.prove.evidence import examine, transitions
from tests.prove.house import House, require
from tests.prove.shop import Cast, Shop

PER_SECOND: Final = 20.0
AWAY: Final = "payments"
_FIRST_STEP: Final = "reserve:"
_SETTLE_S: Final = 900.0
_STARVED_S: Final = 20.0
"""Who waits so long that has nothing to do with it is starved, on two cores that have everything to catch up on."""


class Times(NamedTuple):
    """How long it lasts, in seconds: before, away, and after."""

    before: float
    away: float
    after: float


FULL: Final = Times(30, 300, 60)


def times(away_s: float | None) -> Times:
    """So long away, and a fitting while before and after; five minutes if nothing is said."""
    return FULL if away_s is None else Times(away_s / 5, away_s, away_s / 3)


def prove(house: House, folder: Path, *, prefix: str, who: str, times: Times = FULL, seed: int = 1) -> dict[str, Any]:
    """Have `who` (a key of `SCENES`) be away for a while; compare everything, and how long the others took."""
    folder.mkdir(parents=True, exist_ok=True)
    patient = folder / "place_order.yaml"
    patient.write_text(_patient(DEFINITION_FILE.read_text()))
    with Shop(house, folder / "shop", prefix, Cast(definitions=(patient,), seed=seed)) as shop:
        _load(shop, times.before)
        began_ms = time.monotonic() * 1000
        SCENES[who](shop, times.away)
        ended_ms = time.monotonic() * 1000
        _load(shop, times.after)
        shop.place(20)
        shop.settle(_SETTLE_S)
        timed_out = sum(isinstance(one, t.StepTimedOut) for one in transitions(shop))
        _require_patience(shop)
        others = _others(shop, began_ms, ended_ms)
        return {"away_s": round(times.away), "steps_timed_out": timed_out, "others": others, **examine(shop)}


def _patient(text: str) -> str:
    """The shop's own definition, with more attempts than anybody could be away for."""
    patient = text.replace("attempts: 5,", "attempts: 100,").replace("deadline: 15m", "deadline: 2h")
    assert patient.count("attempts: 100,") == 3
    assert "deadline: 2h" in patient
    return patient


def _load(shop: Shop, seconds: float) -> None:
    until = time.monotonic() + seconds
    shop.load(PER_SECOND, lambda: time.monotonic() >= until, "the time is over", seconds + 60)


def _participant(shop: Shop, seconds: float) -> None:
    """A service is gone; orders come in all the while, and wait for it."""
    shop.troupe.stop(AWAY)
    _load(shop, seconds)
    waiting = sum(not shop.has_ended([one.saga_id]) for one in shop.placed)
    require(waiting > PER_SECOND * seconds / 4, f"only {waiting} sagas waited for {AWAY}, so nothing was shown")
    shop.start_service(AWAY)
    shop.wait_until_ready()


def _registry(shop: Shop, seconds: float) -> None:
    """The registry is gone; orders come in and are decided all the while, and an orchestrator that starts waits."""
    shop.house.registry.kill()
    try:
        newcomer = shop.start_orchestrator(3)
        newcomer.wait_for_line("waiting for Kafka and the registry", timeout_s=60)
        placed = len(shop.placed)
        _load(shop, seconds)
        ended = sum(shop.has_ended([one.saga_id]) for one in shop.placed[placed:])
        require(ended > 0, "no order ended while the registry was away: what is known already has to go on")
    finally:
        shop.house.registry.restart()
    newcomer.wait_for_line("starts  ", timeout_s=60)


def _broker(shop: Shop, seconds: float) -> None:
    """The broker is stopped in order, in the middle of the load, and started on its data; everybody else stays up."""
    shop.place(100)  # so that there are sagas on their way
    running = {name: shop.troupe.process(name).pid for name in shop.troupe.names}
    shop.house.kafka.stop_broker(1)
    try:
        until = time.monotonic() + seconds
        shop.wait(lambda: time.monotonic() >= until, "the time is over", seconds + 60)
    finally:
        shop.house.kafka.start_broker(1)
    still = {name: shop.troupe.process(name).pid for name in shop.troupe.names}
    require(still == running, f"the broker's absence ended somebody: {running} have become {still}")


SCENES: Final[Mapping[str, Callable[[Shop, float], None]]] = {
    "participant": _participant,
    "registry": _registry,
    "broker": _broker,
}


def _require_patience(shop: Shop) -> None:
    impatient = Counter(
        f"{one.failure.step}: {one.failure.kind.value}"
        for one in transitions(shop)
        if isinstance(one, t.SagaTurnedBack) and one.failure.kind is not FailureKind.REJECTED
    )
    require(not impatient, f"sagas were undone although their steps had attempts left: {dict(impatient)}")


def _others(shop: Shop, began_ms: float, ended_ms: float) -> dict[str, dict[str, float]]:
    """How long orders took that their first step refused, in seconds, by when they were placed."""
    took: dict[str, list[float]] = {"before": [], "away": [], "after": []}
    for one in shop.placed:
        seen = shop.watch.sagas[one.saga_id]
        if seen.end_seen_ms is not None and (seen.turned_back or "").startswith(_FIRST_STEP):
            when = "before" if one.at_ms < began_ms else "away" if one.at_ms < ended_ms else "after"
            took[when].append((seen.end_seen_ms - one.at_ms) / 1000)
    require(bool(took["before"] and took["after"]), f"nobody was there to be starved: {took}")
    slowest = max(took["after"])
    require(slowest < _STARVED_S, f"an order that had no part in it took {slowest:.1f} s after the return")
    return {
        when: {"orders": len(each), "median_s": round(median(each), 3), "slowest_s": round(max(each), 3)}
        for when, each in took.items()
        if each
    }
