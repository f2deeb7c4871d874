"""Starts that wait: nobody is there for three times the dedupe window, and each still runs, and none twice."""

import time
from pathlib import Path
from typing import Any, Final

from sagakit.core import transitions as t
from services.books import read_shop
from tests.prove.evidence import examine, transitions
from tests.prove.house import House, require
from tests.prove.shop import QUICK_ORDER, Cast, Shop

_EARLIER: Final = 50
_CHUNK: Final = 1_000


def prove(house: House, folder: Path, *, prefix: str, sagas: int, seed: int = 1) -> dict[str, Any]:
    """Let starts wait, each of them sent twice, and with them repeats of such as ended just before all went away."""
    cast = Cast(services=("inventory",), orchestrators=2, definitions=(QUICK_ORDER,), seed=seed)
    with Shop(house, folder, prefix, cast) as shop:
        window_ms = shop.definition_of("quick-order", 1).dedupe_ms
        earlier = [shop.start("quick-order", order) for order in shop.next_orders(_EARLIER)]
        shop.client.send(earlier)
        shop.wait(lambda: shop.has_ended([one.saga_id or "" for one in earlier]), "the first sagas have ended")
        for number in (1, 2):
            shop.troupe.kill(f"orchestrator-{number}")
        shop.client.send(earlier)  # again: their markers still stand at the time when these are appended
        waiting = [shop.start("quick-order", order) for order in shop.next_orders(sagas)]
        for _ in range(2):
            for begin in range(0, sagas, _CHUNK):
                shop.client.send(waiting[begin : begin + _CHUNK])
        back_at = time.monotonic() + 3 * window_ms / 1000
        shop.wait(lambda: time.monotonic() >= back_at, "the dedupe window has passed three times")
        for number in (1, 2):
            shop.start_orchestrator(number)
        ids = [one.saga_id or "" for one in (*earlier, *waiting)]
        shop.wait(lambda: shop.has_ended(ids), "every start has run", timeout_s=60 + sagas / 50)
        shop.settle()
        within = _repeats_within_the_window(shop, frozenset(ids[:_EARLIER]))
        runs = {one: shop.watch.sagas[one].runs for one in ids}
        twice = [one for one, times in runs.items() if times != 1 and one not in within.late]
        require(not twice, f"{len(twice)} of {len(ids)} starts ran more than once: {twice[:5]}")
        compare_with_ledger(shop, runs)
        return {"waited_windows": 3, "repeats_while_marked": within.count, **examine(shop, books=False)}


class _Within:
    """How many repeats were appended while the marker stood, and the sagas whose repeat came later."""

    def __init__(self) -> None:
        self.count = 0
        self.late: set[str] = set()


def _repeats_within_the_window(shop: Shop, earlier: frozenset[str]) -> _Within:
    """By the broker's append time, which is what counts: a slow machine may have needed longer than the window."""
    expiry = {
        one.header.saga_id: one.marker_expires_at_ms
        for one in reversed(list(transitions(shop)))  # of a saga that ran again, the first end
        if isinstance(one, t.SagaCompleted | t.SagaCompensated)
    }
    within, seen = _Within(), set()
    for record in shop.read(shop.topics.inbox):
        saga_id = (record.key or b"").decode()
        if dict(record.headers).get("ce_type") != b"sagakit.Start" or saga_id not in earlier:
            continue
        if saga_id in seen and record.timestamp_ms < expiry[saga_id]:
            within.count += 1
        elif saga_id in seen:
            within.late.add(saga_id)
        seen.add(saga_id)
    require(within.count > 0, "no start was repeated while a marker stood, so nothing was shown of it")
    return within


def compare_with_ledger(shop: Shop, runs: dict[str, int]) -> None:
    """The stock was reserved, or refused, once for each run."""
    done = [one for one in read_shop(shop.ledgers).ledgers["inventory"].effects if one.what in ("effect", "rejection")]
    told = {one.saga_id for one in done}
    require(told == runs.keys(), f"{len(runs.keys() ^ told)} sagas and reservations do not belong together")
    require(len(done) == sum(runs.values()), f"{len(done)} reservations and refusals for {sum(runs.values())} runs")
