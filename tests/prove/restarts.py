"""Restarts under load: each instance in its turn, in order; and each broker of three, killed and started on its data.

Of three, because a broker of Kafka 4.3 that is the only one loses commits when it is killed: see `docs/operations.md`.
"""

from pathlib import Path
from typing import Any, Final

from tests.prove.evidence import examine
from tests.prove.house import House, require
from tests.prove.shop import Cast, Shop

PER_SECOND: Final = 40.0
_ORDERS_BETWEEN: Final = 20
ORCHESTRATORS: Final = (1, 2)


def prove(house: House, folder: Path, *, prefix: str, rounds: int, seed: int = 1) -> dict[str, Any]:
    """Restart both orchestrators, a service and a broker, that many times; then compare everything."""
    with Shop(house, folder, prefix, Cast(seed=seed)) as shop:
        for number in range(rounds):
            roll(shop, "payments")
            restart_broker(shop, house.kafka.brokers[number % len(house.kafka.brokers)])
        shop.settle()
        return {"rounds": rounds, **examine(shop)}


def roll(shop: Shop, service: str) -> None:
    """Restart both orchestrators and a service, one after the other; each must end in order."""
    for number in ORCHESTRATORS:
        _more(shop)
        _end(shop, f"orchestrator-{number}")
        _more(shop)
        shop.start_orchestrator(number)
        shop.wait_until_ready()
    _more(shop)
    _end(shop, service)
    _more(shop)
    shop.start_service(service)
    shop.wait_until_ready()
    _more(shop)


def restart_broker(shop: Shop, broker: int) -> None:
    """Kill a broker under load, and start it on its data when others have gone on; nobody else is restarted for it."""
    _more(shop)
    shop.place(_ORDERS_BETWEEN)
    kafka = shop.house.kafka
    running = {name: shop.troupe.process(name).pid for name in shop.troupe.names}
    kafka.kill_broker(broker)
    _more(shop)
    kafka.start_broker(broker)
    _more(shop)
    shop.settle(120)
    still = {name: shop.troupe.process(name).pid for name in shop.troupe.names}
    require(still == running, f"the broker's death ended somebody: {running} have become {still}")


def _end(shop: Shop, name: str) -> None:
    shop.place(_ORDERS_BETWEEN)
    code = shop.troupe.stop(name)
    require(code == 0, f"{name} was asked to end and ended with exit code {code}")


def _more(shop: Shop) -> None:
    placed = len(shop.placed)
    shop.load(PER_SECOND, lambda: len(shop.placed) >= placed + _ORDERS_BETWEEN, "some more orders are placed")
