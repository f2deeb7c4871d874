"""Zombies: an orchestrator that is stopped (SIGSTOP), wakes after its partitions have moved, and changes nothing."""

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final

from sagakit.failpoints import read_log
from sagakit.testing.process import Process
from tests.prove.evidence import examine, latest_states
from tests.prove.house import House, require
from tests.prove.shop import Cast, Shop

PER_SECOND: Final = 40.0
_SLEEPER: Final = 2
_REFUSED: Final = ("the transaction's outcome is unknown", "a cycle was aborted")
"""What an orchestrator says when the broker takes its transaction no more."""

_DROPPED: Final = "the group has dropped this member"
"""What it says when it learns that its partitions are others'; without work in hand there is nothing to refuse."""

_IN_COMMIT: Final = "orchestrator.in-commit"
_INSIDE: Final = ("orchestrator.transaction-open", "orchestrator.before-commit", _IN_COMMIT)


def prove(house: House, folder: Path, *, prefix: str, count: int, seed: int = 1) -> dict[str, Any]:
    """Stop and wake that many, by turns within each part of a transaction and at any moment; then compare all.

    Each is fenced: whoever was stopped with work in hand has to try to commit it when it wakes, and has to be refused;
    whoever had none has to learn that it is no member any more.
    """
    random = Random(seed)
    moments: Counter[str] = Counter()
    fenced: dict[str, Counter[str]] = {}
    with Shop(house, folder, prefix, Cast(seed=seed)) as shop:
        for number in range(count):
            inside = _INSIDE[number // 2 % len(_INSIDE)] if number % 2 == 0 else None
            moment = inside or "at any moment"
            moments[moment] += 1
            how = sleep_and_wake(shop, inside, seed=seed + number, after=random.randrange(5, 60))
            fenced.setdefault(moment, Counter())[how] += 1
        shop.place(40)
        shop.settle()
        return {"zombies": count, "stopped": dict(moments), "fenced": fenced, **examine(shop)}


def sleep_and_wake(shop: Shop, inside: str | None, *, seed: int, after: int) -> str:
    """Stop an orchestrator in its `after`-th transaction (or without `inside` at any moment), let the other one take
    over and end everything, wake it: not a record may be written. How it was fenced."""
    log = shop.folder / f"stopped-{seed}-{after}.jsonl"
    armed = {"SAGAKIT_FAILPOINTS": f"{inside}=stop:{seed}:after={after}:limit=1", "SAGAKIT_FAILPOINT_LOG": str(log)}
    shop.troupe.stop(f"orchestrator-{_SLEEPER}")
    sleeper = shop.start_orchestrator(_SLEEPER, armed if inside else None)
    shop.wait_until_ready()
    if inside:
        shop.load(PER_SECOND, lambda: any(read_log(log)), f"an orchestrator has stopped itself {inside}")
    else:
        placed = len(shop.placed)
        shop.load(PER_SECOND, lambda: len(shop.placed) >= placed + after, "enough orders are placed")
        sleeper.pause()
    shop.place(40)
    try:
        shop.settle()
        awake = _wake(shop, sleeper)
    finally:
        sleeper.resume()
    if any(words in awake for words in _REFUSED):
        return "its transaction was refused"
    # A commit that was under way may have reached the broker: then it was no zombie's any more, and nothing is refused.
    require(
        inside in (None, _IN_COMMIT),
        f"an orchestrator was stopped {inside} and was not refused when it woke, so nothing was shown of it: {log}",
    )
    require(_DROPPED in awake, f"an orchestrator slept and was a member of its group all the while: {awake[-2_000:]}")
    return "the group had dropped it"


def _wake(shop: Shop, sleeper: Process) -> str:
    """Wake it, and wait until it is at work again; what it says meanwhile."""
    transitions, states = shop.watch.transitions, latest_states(shop)
    offsets = dict(shop.watch.next_offsets)
    said = len(sleeper.output())
    sleeper.resume()
    sleeper.wait_until(
        lambda: "partition assigned" in sleeper.output()[said:], timeout_s=60, what="back in the group with partitions"
    )
    shop.wait_until_ready()
    shop.settle()
    require(
        (shop.watch.transitions, shop.watch.next_offsets) == (transitions, offsets),
        f"a zombie wrote after it woke: {shop.watch.transitions - transitions} transitions, or messages",
    )
    require(latest_states(shop) == states, "a zombie changed the state of a saga")
    return sleeper.output()[said:]
