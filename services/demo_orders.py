"""Orders to try the shop with: most go through, and each way in which one can fail is among them.

`python -m services.demo_orders --sagas 300 --seed 1` prints them, one JSON object a line. The same seed gives the same
orders.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

from services.inventory.catalogue import CATALOGUE

Order: TypeAlias = dict[str, Any]
"""The data of a `shop.orders.OrderPlaced`, in the form in which expressions see it."""

ORDERS_FILE: Final = Path(__file__).parent / "orders" / "demo_orders.jsonl"
"""The 300 orders of the demo: those of seed 1."""

PARKING_ORDERS_FILE: Final = ORDERS_FILE.with_name("parking_orders.jsonl")
"""A few orders, two of which go to a carrier that is never heard of again: a person has to find out."""

_OPENING: Final = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
_FIRST_NAMES: Final = ("Ada", "Bo", "Chiara", "Dmitri", "Elif", "Femi", "Greta", "Hugo", "Ines", "Jan", "Kaja", "Lars")
_LAST_NAMES: Final = ("Aalto", "Brandt", "Costa", "Dubois", "Eriksen", "Fischer", "Garcia", "Haas", "Ito", "Jansen")
_CITIES: Final = {
    "DE": (("Leipzig", "04109"), ("Bremen", "28195"), ("Jena", "07743")),
    "AT": (("Graz", "8010"), ("Linz", "4020")),
    "DK": (("Aarhus", "8000"),),
    "SE": (("Uppsala", "753 10"),),
    "BE": (("Gent", "9000"),),
    "NL": (("Utrecht", "3511"), ("Leiden", "2311")),
    "FR": (("Nantes", "44000"), ("Lyon", "69001")),
    "PL": (("Gdynia", "81-301"), ("Lublin", "20-001")),
    "AQ": (("Neumayer Station", "0000"),),
    "BV": (("Bouvet", "0000"),),
}
_STREETS: Final = ("Canal Street", "Mill Lane", "Station Road", "Harbour Row", "Lindenallee", "Rosenweg")
_SWIFT: Final = ("DE", "DE", "DE", "AT", "DK", "SE", "BE")
_NOT_SERVED: Final = ("AQ", "BV")
_GOOD_CARDS: Final = ("card-visa", "card-master", "card-giro")
_BAD_CARDS: Final = ("card-declined", "card-expired", "card-limit")

# Of a hundred orders; the rest has nothing special about it.
_WAYS: Final = (
    ("sold out", 10),
    ("last pieces", 6),
    ("declined", 11),
    ("not served", 8),
    ("slow carrier", 7),
    ("late carrier", 3),
    ("flaky carrier", 5),
)


def orders(count: int, seed: int) -> Iterator[Order]:
    """`count` orders, each with an id of its own for this seed."""
    random = Random(seed)
    at = _OPENING
    for number in range(1, count + 1):
        at += timedelta(milliseconds=random.randrange(200, 9_000))
        yield _order(random, f"order-{seed}-{number:05d}", at)


def read_orders(path: Path = ORDERS_FILE) -> Iterator[Order]:
    """The orders of a file, one JSON object a line."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _order(random: Random, order_id: str, at: datetime) -> Order:
    way = _draw_way(random)
    country = {
        "not served": random.choice(_NOT_SERVED),
        "slow carrier": "NL",
        "late carrier": "FR",
        "flaky carrier": "PL",
    }.get(way, random.choice(_SWIFT))
    skus = random.sample([article.sku for article in CATALOGUE if article.opening_stock > 100], random.randint(1, 3))
    if way in ("sold out", "last pieces"):
        skus.append("whisk-bamboo" if way == "sold out" else "tray-walnut-limited")
    prices = {article.sku: article.unit_price_cents for article in CATALOGUE}
    items: list[dict[str, Any]] = [
        {
            "sku": sku,
            "quantity": 1 if sku == "tray-walnut-limited" else random.randint(1, 4),
            "unit_price_cents": prices[sku],
        }
        for sku in skus
    ]
    card = random.choice(_BAD_CARDS if way == "declined" else _GOOD_CARDS)
    first, last = random.choice(_FIRST_NAMES), random.choice(_LAST_NAMES)
    city, postal_code = random.choice(_CITIES[country])
    return {
        "order_id": order_id,
        "customer_id": f"customer-{random.randrange(10_000):04d}",
        "customer_email": f"{first}.{last}@example.org".lower(),
        "amount_cents": sum(item["quantity"] * item["unit_price_cents"] for item in items),
        "currency": "EUR",
        "items": items,
        "address": {
            "street": f"{random.choice(_STREETS)} {random.randint(1, 120)}",
            "city": city,
            "postal_code": postal_code,
            "country": country,
        },
        "card_token": f"{card}-{random.randrange(10**6):06d}",
        "placed_at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def _draw_way(random: Random) -> str:
    drawn = random.randrange(100)
    for way, share in _WAYS:
        drawn -= share
        if drawn < 0:
            return way
    return "nothing special"


def main() -> None:
    """Print orders."""
    parser = argparse.ArgumentParser(description="Print orders to try the shop with, one JSON object a line.")
    parser.add_argument("--sagas", type=int, default=300, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other orders")
    arguments = parser.parse_args()
    for order in orders(arguments.sagas, arguments.seed):
        sys.stdout.write(json.dumps(order, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
