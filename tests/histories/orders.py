"""The definitions of the kept histories. They never change: a kept history is only worth what it was recorded under."""

from sagakit.core.definition import Again, Definition, Kind, RetryPolicy
from sagakit.proving.definitions import Constant, Failing, Path, command, definition, publication, task

TWICE = RetryPolicy(attempts=2, backoff_ms=200, max_ms=1_000)
THRICE = RetryPolicy(attempts=3, backoff_ms=200, max_ms=1_000)

PLACE_ORDER = definition(
    task(
        "reserve",
        forward=command("ReserveStock", {"sku": Path("start.sku")}, service="inventory", reply="shop.StockReserved"),
        compensate=command("ReleaseStock", {"sku": Path("start.sku")}, service="inventory", retry=TWICE),
        rejects=["OUT_OF_STOCK"],
        keep=["reservation_id"],
    ),
    task(
        "wrap",
        when=Path("start.gift"),
        forward=command("WrapGift", {"sku": Path("start.sku")}, service="inventory"),
        compensate=command("UnwrapGift", {"why": Path("failure.kind")}, service="inventory"),
    ),
    task(
        "charge",
        after=["reserve", "wrap"],
        forward=command(
            "ChargeCard",
            {"cents": Path("start.cents"), "reservation": Path("reserve.reservation_id")},
            service="payments",
            retry=THRICE,
        ),
        compensate=command("RefundCard", {"cents": Path("start.cents")}, service="payments", retry=TWICE),
        rejects=["CARD_DECLINED"],
    ),
    task(
        "ship",
        after=["charge"],
        kind=Kind.PIVOT,
        forward=command("BookParcel", {"to": Path("start.to")}, service="shipping", retry=TWICE),
        keep=["tracking"],
    ),
    task(
        "mark",
        after=["ship"],
        kind=Kind.RETRIABLE,
        forward=command("MarkConfirmed", {"tracking": Path("ship.tracking")}, service="orders", retry=TWICE),
    ),
    again=Again.AFTER_COMPENSATED,
    deadline_ms=60_000,
    dedupe_ms=3_600_000,
    start_keep=["sku", "cents", "gift", "to"],
    completed=publication("OrderConfirmed", {"sku": Path("start.sku"), "tracking": Path("ship.tracking")}),
    compensated=publication("OrderRejected", {"why": Path("failure.kind"), "code": Path("failure.code")}),
)

RESTOCK = definition(
    task(
        "order", forward=command("OrderGoods", {"n": Constant(3)}), compensate=command("CancelGoods", {"x": Failing()})
    ),
    task("count", after=["order"], forward=command("CountGoods", retry=TWICE)),
    name="restock",
    version=4,
    completed=publication("Restocked", {"n": Failing("no such overload")}),
)


def published(name: str, version: int) -> Definition:
    """The definition of that name and version."""
    return {("place-order", 1): PLACE_ORDER, ("restock", 4): RESTOCK}[name, version]
