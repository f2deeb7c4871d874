"""What each process of a run knows: the topics, the registry in memory, the records of the order saga."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.app.settings import Settings
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.own import OwnRecords, own_schemas
from sagakit.contracts.schemas import load_folder
from sagakit.core.values import Data
from tests.bench.loads import ORDERS, Load

SHOP: Final = Path(__file__).parents[2] / "schemas" / "shop"

ORDER: Final[Data] = {
    "order_id": "",
    "customer_id": "customer-00000001",
    "customer_email": "ada@example.org",
    "amount_cents": 4200,
    "currency": "EUR",
    "items": [
        {"sku": "sku-000001", "quantity": 2, "unit_price_cents": 1000},
        {"sku": "sku-000002", "quantity": 1, "unit_price_cents": 2200},
    ],
    "address": {"street": "Main Street 1", "city": "Delft", "postal_code": "2611", "country": "NL"},
    "card_token": "tok-0001",
    "placed_at": "2026-11-23T14:05:09.123Z",
}
REPLIES: Final[Mapping[str, tuple[str, Data]]] = {
    "shop.inventory.ReserveStock": ("shop.inventory.StockReserved", {"reservation_id": "reservation-1"}),
    "shop.inventory.ReleaseStock": ("shop.inventory.StockReleased", {"order_id": "order-1", "released": 3}),
    "shop.payments.ChargeCard": ("shop.payments.CardCharged", {"payment_id": "payment-1", "charged_cents": 4200}),
    "shop.payments.RefundCard": ("shop.payments.CardRefunded", {"order_id": "order-1", "refunded_cents": 4200}),
    "shop.shipping.BookParcel": (
        "shop.shipping.ParcelBooked",
        {"parcel_id": "parcel-1", "carrier": "carrier-1", "tracking": None},
    ),
}


class World:
    """What each process of a run knows: the topics, the registry, and how to write."""

    def __init__(self, bootstrap: str, prefix: str, load: Load = ORDERS) -> None:
        self.bootstrap = bootstrap
        self.load = load
        self.order = {**ORDER, "card_token": "t" * load.payload_bytes}
        self.settings = Settings(bootstrap=bootstrap, topic_prefix=prefix, partitions=load.partitions)
        self.topics = self.settings.topics
        self.registry = MemoryRegistry()
        self.schemas = load_folder(SHOP)
        for name, text in [*own_schemas().items(), *self.schemas.items()]:
            self.registry.register(name, text)
        self.own = OwnRecords(self.registry)
        self.avro = AvroCodec(self.registry)

    @cache  # noqa: B019 - a world lives as long as its process
    def encoded(self, type_: str, order_id: str | None = None) -> bytes:
        """The framed record of a constant reply, or of an order."""
        data = {**self.order, "order_id": order_id} if order_id is not None else dict(_reply_data(type_))
        return self.avro.encode(self.avro.compile_schema(self.schemas[type_]), data)


def _reply_data(type_: str) -> Data:
    return next(data for name, data in REPLIES.values() if name == type_)
