"""Models of the shop's records (`schemas/shop`)."""

from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel


class Item(BaseModel):
    """One line of an order."""

    __avro_record__: ClassVar[str] = "shop.orders.Item"
    sku: str
    quantity: int
    unit_price_cents: int


class Address(BaseModel):
    """Where a parcel goes."""

    __avro_record__: ClassVar[str] = "shop.orders.Address"
    street: str
    city: str
    postal_code: str
    country: str


class OrderPlaced(BaseModel):
    """A customer has placed an order."""

    __avro_record__: ClassVar[str] = "shop.orders.OrderPlaced"
    order_id: str
    customer_id: str
    customer_email: str
    amount_cents: int
    currency: str
    items: list[Item]
    address: Address
    card_token: str
    placed_at: datetime


class OrderConfirmed(BaseModel):
    """The saga of an order has completed."""

    __avro_record__: ClassVar[str] = "shop.orders.OrderConfirmed"
    order_id: str
    customer_id: str
    amount_cents: int
    parcel_id: str
    carrier: str
    tracking: str | None = None


class OrderRejected(BaseModel):
    """The saga of an order was undone."""

    __avro_record__: ClassVar[str] = "shop.orders.OrderRejected"
    order_id: str
    reason: str
    code: str | None = None


class MarkConfirmed(BaseModel):
    """Enter an order as confirmed."""

    __avro_record__: ClassVar[str] = "shop.orders.MarkConfirmed"
    order_id: str
    parcel_id: str
    payment_id: str


class OrderMarked(BaseModel):
    """The order is entered."""

    __avro_record__: ClassVar[str] = "shop.orders.OrderMarked"
    order_id: str
    status: str


class ReserveStock(BaseModel):
    """Take items out of the free stock."""

    __avro_record__: ClassVar[str] = "shop.inventory.ReserveStock"
    order_id: str
    items: list[Item]


class StockReserved(BaseModel):
    """The items wait for their parcel."""

    __avro_record__: ClassVar[str] = "shop.inventory.StockReserved"
    reservation_id: str


class ReleaseStock(BaseModel):
    """Put an order's items back."""

    __avro_record__: ClassVar[str] = "shop.inventory.ReleaseStock"
    order_id: str


class StockReleased(BaseModel):
    """The items are free again."""

    __avro_record__: ClassVar[str] = "shop.inventory.StockReleased"
    order_id: str
    released: int


class ChargeCard(BaseModel):
    """Charge an order to a card."""

    __avro_record__: ClassVar[str] = "shop.payments.ChargeCard"
    order_id: str
    customer_id: str
    amount_cents: int
    currency: str
    card_token: str


class CardCharged(BaseModel):
    """The card is charged."""

    __avro_record__: ClassVar[str] = "shop.payments.CardCharged"
    payment_id: str
    charged_cents: int


class RefundCard(BaseModel):
    """Give an order's money back."""

    __avro_record__: ClassVar[str] = "shop.payments.RefundCard"
    order_id: str


class CardRefunded(BaseModel):
    """The money is given back."""

    __avro_record__: ClassVar[str] = "shop.payments.CardRefunded"
    order_id: str
    refunded_cents: int


class BookParcel(BaseModel):
    """Book a parcel with a carrier."""

    __avro_record__: ClassVar[str] = "shop.shipping.BookParcel"
    order_id: str
    address: Address
    items: list[Item]


class ParcelBooked(BaseModel):
    """The carrier fetches the parcel."""

    __avro_record__: ClassVar[str] = "shop.shipping.ParcelBooked"
    parcel_id: str
    carrier: str
    tracking: str | None = None
