"""The shop's services: each effect once, undone once, fenced where it never was; rejections by what the data says."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sagakit.core import ids
from sagakit.core.events import Source
from sagakit.participants import Context, EventContext, Rejected
from services import books
from services.audit import check_ledger
from services.inventory import app as inventory
from services.inventory.catalogue import CATALOGUE
from services.notifications import app as notifications
from services.orders import app as orders
from services.payments import app as payments
from services.shipping import app as shipping
from services.shipping.app import CarrierUnreachable
from services.shop_models import (
    Address,
    BookParcel,
    ChargeCard,
    Item,
    MarkConfirmed,
    OrderConfirmed,
    OrderRejected,
    RefundCard,
    ReleaseStock,
    ReserveStock,
)

APPS = (inventory, payments, shipping, orders, notifications)
SAGA = ids.saga_id("default", "place-order", "order-1")
CHARGE = ChargeCard(
    order_id="order-1", customer_id="customer-1", amount_cents=4_200, currency="EUR", card_token="card-visa-1"
)
CONFIRMED = OrderConfirmed(
    order_id="order-1", customer_id="customer-1", amount_cents=4_200, parcel_id="parcel-1", carrier="Swift Parcel"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SHOP_DATA", str(tmp_path))
    yield tmp_path
    for app in APPS:
        app.ledger.close()


def forward(step: str, attempt: int = 1, saga_id: str = SAGA) -> Context:
    return Context(
        service="test",
        saga_id=saga_id,
        key="order-1",
        run=1,
        address=step,
        direction="forward",
        attempt=attempt,
        command_id=ids.command_id(saga_id, 1, step, "forward", attempt),
        idempotency_key=ids.idempotency_key(saga_id, 1, step, "forward", 0),
        undoes=None,
        correlation_id=saga_id,
        expires_at_ms=0,
        trace=None,
        source=Source(topic="test.commands", partition=0, offset=0),
    )


def backward(step: str, saga_id: str = SAGA) -> Context:
    done = forward(step, saga_id=saga_id)
    return replace(
        done,
        direction="compensation",
        command_id=ids.command_id(saga_id, 1, step, "compensation", 1),
        idempotency_key=ids.idempotency_key(saga_id, 1, step, "compensation", 0),
        undoes=done.idempotency_key,
    )


def event(event_id: str = "event-1") -> EventContext:
    return EventContext(
        service="test",
        event_id=event_id,
        type="shop.orders.OrderConfirmed",
        key="order-1",
        attempt=1,
        correlation_id=SAGA,
        causation_id=None,
        trace=None,
        source=Source(topic="orders.events", partition=0, offset=0),
    )


def reserve(*items: tuple[str, int]) -> ReserveStock:
    return ReserveStock(
        order_id="order-1", items=[Item(sku=sku, quantity=quantity, unit_price_cents=1) for sku, quantity in items]
    )


def stock(folder: Path, sku: str) -> tuple[int, int, int]:
    (row,) = [row for row in books.read_shop(folder).stock if row.sku == sku]
    return row.opening - row.on_hand, row.reserved, row.shipped


def test_a_retry_and_a_redelivery_are_answered_with_the_first_reply(folder: Path) -> None:
    """Rule 12: a retry is another command and the same effect."""
    first = payments.charge(CHARGE, forward("charge"))
    assert payments.charge(CHARGE, forward("charge")) == first
    assert payments.charge(CHARGE, forward("charge", attempt=2)) == first
    shop = books.read_shop(folder)
    assert [row.charged_cents for row in shop.payments] == [4_200]
    said = [(call.what, call.attempt) for call in shop.ledgers["payments"].calls]
    assert said == [("entry", 1), ("effect", 1), ("entry", 1), ("entry", 2)]


def test_a_refund_gives_back_what_was_charged_once(folder: Path) -> None:
    payments.charge(CHARGE, forward("charge"))
    refund = RefundCard(order_id="order-1")
    assert payments.refund(refund, backward("charge")).refunded_cents == 4_200
    assert payments.refund(refund, backward("charge")).refunded_cents == 4_200
    (row,) = books.read_shop(folder).payments
    assert (row.charged_cents, row.refunded_cents) == (4_200, 4_200)


def test_a_compensation_before_its_command_fences_it(folder: Path) -> None:
    """Rule 18: a participant finishes what it was given, or leaves it to the next."""
    assert payments.refund(RefundCard(order_id="order-1"), backward("charge")).refunded_cents == 0
    with pytest.raises(Rejected, match="FENCED"):
        payments.charge(CHARGE, forward("charge"))
    assert books.read_shop(folder).payments == []


def test_a_compensation_of_a_rejected_command_finds_nothing(folder: Path) -> None:
    declined = CHARGE.model_copy(update={"card_token": "card-declined-1"})
    with pytest.raises(Rejected, match="CARD_DECLINED"):
        payments.charge(declined, forward("charge"))
    assert payments.refund(RefundCard(order_id="order-1"), backward("charge")).refunded_cents == 0
    assert [call.what for call in books.read_shop(folder).ledgers["payments"].calls] == [
        "entry",
        "rejection",
        "entry",
        "nothing",
    ]


def test_a_rejected_command_does_not_take_effect_when_it_comes_again_and_could(folder: Path) -> None:
    limited = "tray-walnut-limited"
    first = reserve((limited, 12))
    other = ids.saga_id("default", "place-order", "order-2")
    inventory.reserve(first, forward("reserve", saga_id=other))
    with pytest.raises(Rejected, match="OUT_OF_STOCK"):
        inventory.reserve(reserve((limited, 1)), forward("reserve"))
    inventory.release(ReleaseStock(order_id="order-2"), backward("reserve", saga_id=other))
    with pytest.raises(Rejected, match="OUT_OF_STOCK") as rejected:
        inventory.reserve(reserve((limited, 1)), forward("reserve"))
    assert rejected.value.details == {"sku": limited}
    assert stock(folder, limited) == (0, 0, 0)


def test_a_handler_that_dies_leaves_its_entry_and_no_effect(folder: Path) -> None:
    def breaks(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        payments.ledger.once(forward("charge"), OrderConfirmed, breaks)  # type: ignore[arg-type]
    rows = books.read_shop(folder).ledgers["payments"]
    assert [call.what for call in rows.calls] == ["entry"]
    assert rows.effects == ()


def test_stock_is_reserved_all_or_none(folder: Path) -> None:
    with pytest.raises(Rejected, match="OUT_OF_STOCK"):
        inventory.reserve(reserve(("cup-porcelain", 2), ("whisk-bamboo", 1)), forward("reserve"))
    assert stock(folder, "cup-porcelain") == (0, 0, 0)


def test_stock_goes_from_hand_to_reserved_to_shipped_and_back(folder: Path) -> None:
    inventory.reserve(reserve(("cup-porcelain", 2), ("tea-sencha-100g", 1)), forward("reserve"))
    assert stock(folder, "cup-porcelain") == (2, 2, 0)
    inventory.hand_over(CONFIRMED, event())
    inventory.hand_over(CONFIRMED, event())
    assert stock(folder, "cup-porcelain") == (2, 0, 2)

    other = ids.saga_id("default", "place-order", "order-2")
    command = reserve(("cup-porcelain", 5)).model_copy(update={"order_id": "order-2"})
    inventory.reserve(command, forward("reserve", saga_id=other))
    released = inventory.release(ReleaseStock(order_id="order-2"), backward("reserve", saga_id=other))
    assert (released.released, stock(folder, "cup-porcelain")) == (5, (2, 0, 2))


def parcel(country: str) -> BookParcel:
    address = Address(street="Canal Street 1", city="Somewhere", postal_code="1", country=country)
    return BookParcel(order_id="order-1", address=address, items=[Item(sku="cup", quantity=1, unit_price_cents=1)])


def book(country: str, attempt: int = 1) -> str:
    return asyncio.run(shipping.book(parcel(country), forward("ship", attempt=attempt))).carrier


@pytest.mark.parametrize(
    ("country", "carrier"), [("DE", "Swift Parcel"), ("NL", "Canal Boats"), ("FR", "Poste Tardive")]
)
def test_parcels_go_with_the_carrier_of_the_country(folder: Path, country: str, carrier: str) -> None:
    assert book(country) == carrier


def test_some_countries_are_not_served(folder: Path) -> None:
    with pytest.raises(Rejected, match="ADDRESS_NOT_SERVED"):
        book("AQ")


def test_a_flaky_carrier_books_once_for_all_its_failures(folder: Path) -> None:
    for attempt in (1, 2):
        with pytest.raises(CarrierUnreachable):
            book("PL", attempt)
    assert book("PL", 3) == "Gremlin Freight"
    calls = books.read_shop(folder).ledgers["shipping"].calls
    assert [(call.what, call.attempt) for call in calls] == [("entry", 1), ("entry", 2), ("effect", 2), ("entry", 3)]


def test_an_order_is_entered_once(folder: Path) -> None:
    command = MarkConfirmed(order_id="order-1", parcel_id="parcel-1", payment_id="payment-1")
    assert orders.mark_confirmed(command, forward("confirm")) == orders.mark_confirmed(command, forward("confirm", 2))


def test_a_customer_is_told_once_an_event(folder: Path) -> None:
    notifications.tell_confirmed(CONFIRMED, event())
    notifications.tell_confirmed(CONFIRMED, event())
    notifications.tell_rejected(OrderRejected(order_id="order-1", reason="rejected", code="OUT_OF_STOCK"), event("2"))
    told = books.read_shop(folder).notifications
    assert [(row.event_id, row.kind) for row in told] == [("event-1", "confirmed"), ("2", "rejected")]


def test_an_event_handler_leaves_its_entry_at_once_and_its_effect_once(folder: Path) -> None:
    def breaks(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        notifications.ledger.notice(event(), breaks)
    notifications.tell_confirmed(CONFIRMED, replace(event(), attempt=2))
    notifications.tell_confirmed(CONFIRMED, event())
    rows = books.read_shop(folder).ledgers["notifications"]
    assert [(call.what, call.attempt) for call in rows.calls] == [
        ("entry", 1),
        ("entry", 2),
        ("effect", 2),
        ("entry", 1),
    ]
    assert {(call.saga_id, call.direction, call.command_id) for call in rows.calls} == {(SAGA, "event", "event-1")}
    assert check_ledger(rows) == []


def test_ledgers_of_honest_services_have_nothing_wrong(folder: Path) -> None:
    payments.charge(CHARGE, forward("charge"))
    payments.refund(RefundCard(order_id="order-1"), backward("charge"))
    inventory.release(ReleaseStock(order_id="order-1"), backward("reserve"))
    with pytest.raises(Rejected):
        inventory.reserve(reserve(("cup-porcelain", 2)), forward("reserve"))
    shop = books.read_shop(folder)
    keys = {ctx.idempotency_key for step in ("charge", "reserve") for ctx in (forward(step), backward(step))}
    assert [check_ledger(rows, keys) for rows in shop.ledgers.values()] == [[]] * len(books.SERVICES)


def test_a_shop_without_databases_has_no_rows(folder: Path) -> None:
    shop = books.read_shop(folder / "nowhere")
    assert (shop.payments, shop.stock, [rows.calls for rows in shop.ledgers.values()]) == ([], [], [()] * 5)


def test_articles_have_their_own_sku() -> None:
    assert len({article.sku for article in CATALOGUE}) == len(CATALOGUE)
