"""After an outage, timers are due and replies are waiting: the replies win."""

import time
from pathlib import Path
from typing import Any, Final

from sagakit.core import transitions as t
from tests.prove.desk import of, open_desk
from tests.prove.evidence import examine
from tests.prove.house import House, require
from tests.prove.shop import BY_HAND, Cast, Shop

_PAST_TIMEOUT_S: Final = 4.0
"""Longer than a step of `by_hand.yaml` may take."""


def prove(house: House, folder: Path, *, prefix: str, sagas: int, seed: int = 1) -> dict[str, Any]:
    """Answer half of the commands while no orchestrator runs, and bring the orchestrators back after the timeouts."""
    cast = Cast(services=(), orchestrators=2, definitions=(BY_HAND,), seed=seed)
    with Shop(house, folder, prefix, cast) as shop, open_desk(shop) as desk:
        ids = [
            one.saga_id or "" for one in shop.client.send([shop.start("by-hand", o) for o in shop.next_orders(sagas)])
        ]
        answered = ids[: sagas // 2]
        commands = desk.await_commands(lambda one: True, 2 * sagas)
        for number in (1, 2):
            shop.troupe.kill(f"orchestrator-{number}")
        shop.write(*(desk.answer(one) for one in commands if one.saga_id in set(answered)))
        back_at = time.monotonic() + _PAST_TIMEOUT_S
        shop.wait(lambda: time.monotonic() >= back_at, "every timeout has passed")
        for number in (1, 2):
            shop.start_orchestrator(number)
        desk.await_commands(of(answered, "confirm"), len(answered))
        late = {one.saga_id for one in commands if one.saga_id not in set(answered)}
        desk.await_commands(of(list(late), "charge", attempt=2), len(late))
        desk.serve(lambda: shop.has_ended(ids), "every saga has ended")
        shop.settle()
        steps = {
            (one, str(two.header.step)) for one in ids for two in shop.history(one) if isinstance(two, t.StepTimedOut)
        }
        overtaken = [one for one in steps if one[0] in set(answered) and one[1] != "confirm"]
        require(not overtaken, f"{len(overtaken)} steps timed out although their reply was in the log: {overtaken[:5]}")
        timed_out = sum(one[0] in late for one in steps)
        require(timed_out >= len(late), "no timer was due after the outage, so nothing was shown of it")
        return {"answered_meanwhile": len(answered), "timed_out": timed_out, **examine(shop, books=False)}
