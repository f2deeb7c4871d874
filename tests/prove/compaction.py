"""The state topic is compacted, in small segments, while restores run: markers, tombstones and hanging transactions lie
in it. What is restored is what was written last.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from sagakit.adapters.client_properties import make_producer
from tests.prove.evidence import examine
from tests.prove.house import PARTITIONS, House, require
from tests.prove.shop import QUICK_ORDER, Cast, Shop
from tests.prove.starts import compare_with_ledger

PER_SECOND: Final = 60.0
_BETWEEN: Final = 200
_SAGA: Final = "quick-order"
_COMPACTED: Final = {
    "segment.ms": "500",
    "segment.bytes": "1048576",
    "min.cleanable.dirty.ratio": "0.001",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "500",
}
"""So that nothing of it is ever old: each record is rewritten, and each tombstone dropped, within seconds."""

_HANGS_MS: Final = 8_000
_HELD_BACK: Final = "by an open transaction of an unknown producer"
_OPEN: Final = "orchestrator.transaction-open"
_IN_RESTORE: Final = "orchestrator.in-restore"
_WAIT_S: Final = 120.0


def prove(house: House, folder: Path, *, prefix: str, rounds: int, seed: int = 1) -> dict[str, Any]:
    """Kill an orchestrator in a transaction or in a restore, that many times, while the cleaner works."""
    cast = Cast(services=("inventory",), orchestrators=2, definitions=(QUICK_ORDER,), seed=seed)
    with Shop(house, folder, prefix, cast) as shop:
        _compact(shop)
        started: list[str] = []
        held = cleaned = 0
        for number in range(rounds):
            started += _orders(shop, _BETWEEN)
            stranger = _hang(shop, f"stranger-{seed}-{number}") if number % 3 == 2 else None
            said, more = _kill(shop, 1 + number % 2, _OPEN if number % 2 else _IN_RESTORE, seed + number)
            started += more + _orders(shop, _BETWEEN)
            shop.wait(lambda: shop.has_ended(started), "every saga has ended", _WAIT_S)  # noqa: B023 - at once
            cleaned += _records(shop) < 2 * len(started)
            held += _HELD_BACK in said()
            del stranger
        shop.wait(shop.is_read, "everything that was written has been read", _WAIT_S)
        require(cleaned > rounds // 2, f"the state topic was compacted in {cleaned} of {rounds} rounds only")
        require(held > 0 or rounds < 3, "no restore was held back by a stranger's transaction")
        runs = {one: shop.watch.sagas[one].runs for one in started}
        compare_with_ledger(shop, runs)
        return {
            "rounds": rounds,
            "rounds_in_which_it_was_compacted": cleaned,
            "restores_held_back_by_a_stranger": held,
            "records_left_in_the_state_topic": _records(shop),
            **examine(shop, books=False),
        }


def _compact(shop: Shop) -> None:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in _COMPACTED.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, shop.topics.state, incremental_configs=entries)
    for altered in shop.admin.incremental_alter_configs([resource]).values():
        altered.result()


def _orders(shop: Shop, count: int) -> list[str]:
    """Start so many sagas, a steady stream of them."""
    ids: list[str] = []
    began = time.monotonic()
    while len(ids) < count:
        due = min(count, int((time.monotonic() - began) * PER_SECOND)) - len(ids)
        starts = [shop.start(_SAGA, order) for order in shop.next_orders(max(0, due))]
        shop.write(*(one.record for one in starts))
        ids += [one.saga_id or "" for one in starts]
        shop.look()
    return ids


def _kill(shop: Shop, number: int, point: str, seed: int) -> tuple["_Said", list[str]]:
    """Kill an orchestrator, and have the one in its place kill itself: what all say from then on, and the sagas of
    meanwhile."""
    name, deaths = f"orchestrator-{number}", len(shop.troupe.deaths())
    limit = 1 + sum(one.point == point for one in shop.troupe.deaths())
    after = ":after=5" if point == _OPEN else ""
    said = _Said(shop, [f"orchestrator-{one}" for one in (1, 2) if one != number])
    shop.troupe.kill(name)
    armed = {
        "SAGAKIT_FAILPOINTS": f"{point}=kill@1:{seed}:limit={limit}{after}",
        "SAGAKIT_FAILPOINT_LOG": str(shop.kill_log),
    }
    shop.start_orchestrator(number, armed)
    deadline = time.monotonic() + _WAIT_S
    meanwhile: list[str] = []
    while len(shop.troupe.deaths()) == deaths:
        require(time.monotonic() < deadline, f"{name} did not kill itself {point}")
        meanwhile += _orders(shop, 4)
    meanwhile += _orders(shop, 4)  # by now it has been started again
    shop.wait_until_ready()
    said.add(name)
    return said, meanwhile


class _Said:
    """What some orchestrators have logged since."""

    def __init__(self, shop: Shop, names: Sequence[str]) -> None:
        self._shop = shop
        self._from = {name: len(shop.troupe.process(name).output()) for name in names}

    def add(self, name: str) -> None:
        """One more, from its start on."""
        self._from[name] = 0

    def __call__(self) -> str:
        return "".join(self._shop.troupe.process(name).output()[begin:] for name, begin in self._from.items())


def _hang(shop: Shop, name: str) -> Producer:
    """A stranger's transaction with a record in every partition of the state topic; only its timeout ends it."""
    producer = make_producer(
        shop.properties.producer(
            defaults={"transaction.timeout.ms": _HANGS_MS, "message.timeout.ms": _HANGS_MS - 1_000},
            fixed={"transactional.id": name, "log_level": 3},
        )
    )
    producer.init_transactions(10)
    producer.begin_transaction()
    for partition in range(PARTITIONS):
        producer.produce(shop.topics.state, b"never committed", b"never seen", partition)
    require(producer.flush(10) == 0, "a stranger could not write into the state topic")
    return producer


def _records(shop: Shop) -> int:
    return sum(1 for _ in shop.read(shop.topics.state))
