"""The audit finds each kind of wrong, and nothing in what is right."""

from dataclasses import replace
from typing import Any

import pytest

from services.audit import (
    Call,
    Effect,
    End,
    LedgerRows,
    NotificationRow,
    OrderEnd,
    PaymentRow,
    ReservationRow,
    ShopRows,
    StockRow,
    audit,
    check_ledger,
)

DONE = OrderEnd(saga_id="s1", order_id="o1", end=End.COMPLETED, amount_cents=700, units={"cup": 2})
UNDONE = OrderEnd(saga_id="s2", order_id="o2", end=End.COMPENSATED, amount_cents=300, units={"cup": 1})
PARKED = OrderEnd(saga_id="s3", order_id="o3", end=End.PARKED, amount_cents=500, units={"cup": 1})


def effect(saga: str, what: str = "effect", key: str = "", undoes: str | None = None) -> Effect:
    return Effect(key or f"{what}-{saga}", what, saga, undoes, 0)


def calls(*effects: Effect) -> tuple[Call, ...]:
    rows: list[Call] = []
    for one in effects:
        for what in ("entry", one.what):
            rows.append(
                Call(
                    id=len(rows) + 1,
                    what=what,
                    saga_id=one.saga_id,
                    step="step",
                    direction="forward",
                    attempt=1,
                    command_id="c",
                    idempotency_key=one.idempotency_key,
                    undoes=one.undoes,
                    process_id=1,
                    at_ms=0,
                )
            )
    return tuple(rows)


def ledger(service: str, *effects: Effect) -> LedgerRows:
    return LedgerRows(service=service, calls=calls(*effects), effects=effects)


@pytest.fixture
def shop() -> ShopRows:
    """One order completed, one undone after its charge, one parked before its parcel."""
    undoable = (effect("s1"), effect("s2"), effect("s2", "undo", undoes="effect-s2"), effect("s3"))
    return ShopRows(
        ledgers={
            "inventory": ledger("inventory", *undoable),
            "payments": ledger("payments", *undoable),
            "shipping": ledger("shipping", effect("s1")),
            "orders": ledger("orders", effect("s1")),
            "notifications": LedgerRows(
                service="notifications", calls=calls(effect("s1", key="event-s1")), effects=(effect("s1", "event"),)
            ),
        },
        payments=[
            PaymentRow(payment_id="p1", order_id="o1", saga_id="s1", charged_cents=700, refunded_cents=0),
            PaymentRow(payment_id="p2", order_id="o2", saga_id="s2", charged_cents=300, refunded_cents=300),
            PaymentRow(payment_id="p3", order_id="o3", saga_id="s3", charged_cents=500, refunded_cents=0),
        ],
        stock=[StockRow(sku="cup", on_hand=97, reserved=1, shipped=2, opening=100)],
        reservations=[
            ReservationRow(order_id="o1", saga_id="s1", sku="cup", quantity=2, state="shipped"),
            ReservationRow(order_id="o2", saga_id="s2", sku="cup", quantity=1, state="released"),
            ReservationRow(order_id="o3", saga_id="s3", sku="cup", quantity=1, state="reserved"),
        ],
        notifications=[
            NotificationRow(event_id="e1", saga_id="s1", order_id="o1", kind="confirmed"),
            NotificationRow(event_id="e2", saga_id="s2", order_id="o2", kind="rejected"),
        ],
    )


ENDS = (DONE, UNDONE, PARKED)


def found(shop: ShopRows, ends: tuple[OrderEnd, ...] = ENDS) -> set[tuple[str, str]]:
    verdict = audit(ends, shop)
    assert not verdict.passed
    return {(one.service, one.saga_id) for one in verdict.discrepancies}


def test_books_that_balance(shop: ShopRows) -> None:
    verdict = audit(ENDS, shop)
    assert verdict.discrepancies == ()
    assert verdict.passed
    totals = verdict.books
    assert (totals.charged_cents, totals.refunded_cents) == (1_500, 300)
    assert (totals.confirmed_cents, totals.parked_cents) == (700, 500)
    assert (totals.taken_units, totals.confirmed_units, totals.parked_units) == (3, 2, 1)


def test_money_that_was_not_given_back(shop: ShopRows) -> None:
    kept = replace(shop.payments[1], refunded_cents=0)
    verdict = audit(ENDS, replace(shop, payments=[shop.payments[0], kept, shop.payments[2]]))
    assert not verdict.books.money_balances
    assert not verdict.passed


def test_stock_that_is_missing(shop: ShopRows) -> None:
    wrong = replace(shop, stock=[replace(shop.stock[0], on_hand=96)])
    assert not audit(ENDS, wrong).books.stock_balances
    assert found(wrong) == {("inventory", "")}


def with_reservation(shop: ShopRows, number: int, **changes: Any) -> ShopRows:
    rows = list(shop.reservations)
    rows[number] = replace(rows[number], **changes)
    return replace(shop, reservations=rows)


def test_an_order_that_was_never_handed_over(shop: ShopRows) -> None:
    """As when inventory never hears that the order is confirmed: no total changes, and the parcel stays."""
    kept = with_reservation(shop, 0, state="reserved")
    kept = replace(kept, stock=[replace(shop.stock[0], reserved=3, shipped=0)])
    assert audit(ENDS, kept).books.stock_balances
    assert found(kept) == {("inventory", "s1")}


def test_units_that_went_from_one_order_to_another(shop: ShopRows) -> None:
    other = replace(DONE, saga_id="s4", order_id="o4")
    theirs = replace(shop.reservations[0], saga_id="s4", order_id="o4", quantity=3)
    wrong = with_reservation(shop, 0, quantity=1)
    verdict = audit((*ENDS, other), replace(wrong, reservations=[*wrong.reservations, theirs]))
    units = [one.saga_id for one in verdict.discrepancies if "ordered" in one.what]
    assert units == ["s1", "s4"]


def test_stock_that_an_undone_order_still_holds(shop: ShopRows) -> None:
    assert ("inventory", "s2") in found(with_reservation(shop, 1, state="reserved"))


def test_stock_that_left_although_its_order_waits_for_a_person(shop: ShopRows) -> None:
    assert ("inventory", "s3") in found(with_reservation(shop, 2, state="shipped"))


def test_stock_that_is_away_for_no_order(shop: ShopRows) -> None:
    assert found(replace(shop, stock=[replace(shop.stock[0], reserved=0, shipped=3)])) == {("inventory", "")}


def test_stock_of_a_saga_that_nobody_knows(shop: ShopRows) -> None:
    ghost = replace(shop.reservations[0], saga_id="ghost")
    assert ("inventory", "ghost") in found(replace(shop, reservations=[*shop.reservations, ghost]))


def test_what_an_event_did_and_no_call_tells(shop: ShopRows) -> None:
    untold = replace(shop.ledgers["notifications"], calls=())
    assert found(replace(shop, ledgers={**shop.ledgers, "notifications": untold})) == {("notifications", "s1")}


def test_an_effect_missing_in_a_completed_saga(shop: ShopRows) -> None:
    ledgers = {**shop.ledgers, "orders": ledger("orders")}
    assert found(replace(shop, ledgers=ledgers)) == {("orders", "s1")}


def test_an_effect_left_in_a_compensated_saga(shop: ShopRows) -> None:
    ledgers = {**shop.ledgers, "inventory": ledger("inventory", effect("s1"), effect("s2"), effect("s3"))}
    assert found(replace(shop, ledgers=ledgers)) == {("inventory", "s2")}


def test_a_parcel_of_a_compensated_saga(shop: ShopRows) -> None:
    ledgers = {**shop.ledgers, "shipping": ledger("shipping", effect("s1"), effect("s2"))}
    assert found(replace(shop, ledgers=ledgers)) == {("shipping", "s2")}


def test_an_effect_of_a_saga_that_nobody_knows(shop: ShopRows) -> None:
    ledgers = {**shop.ledgers, "payments": ledger("payments", *shop.ledgers["payments"].effects, effect("ghost"))}
    assert found(replace(shop, ledgers=ledgers)) == {("payments", "ghost")}


def test_an_effect_that_no_command_of_the_backlog_explains(shop: ShopRows) -> None:
    scheduled = {one.idempotency_key for rows in shop.ledgers.values() for one in rows.effects} - {"effect-s1"}
    discrepancies = audit(ENDS, shop, scheduled).discrepancies
    assert {(one.service, one.saga_id) for one in discrepancies} == {
        (service, "s1") for service in ("inventory", "payments", "shipping", "orders")
    }


@pytest.mark.parametrize(("kinds", "wrong"), [([], "s1"), (["confirmed", "confirmed"], "s1"), (["rejected"], "s1")])
def test_customers_told_wrongly(shop: ShopRows, kinds: list[str], wrong: str) -> None:
    told = [replace(shop.notifications[0], kind=kind) for kind in kinds]
    assert found(replace(shop, notifications=[*told, shop.notifications[1]])) == {("notifications", wrong)}


def test_a_customer_told_of_an_unknown_saga(shop: ShopRows) -> None:
    ghost = replace(shop.notifications[0], saga_id="ghost")
    assert found(replace(shop, notifications=[*shop.notifications, ghost])) == {("notifications", "ghost")}


def complaint(rows: LedgerRows) -> str:
    (one,) = check_ledger(rows)
    return one.what


def test_what_a_call_log_can_give_away() -> None:
    done, undone = effect("s1"), effect("s1", "undo", undoes="effect-s1")
    twice = LedgerRows(service="s", calls=(*calls(done), replace(calls(done)[1], id=3)), effects=(done,))
    assert "took place twice" in complaint(twice)
    never_entered = LedgerRows(service="s", calls=calls(done)[1:], effects=(done,))
    assert "never entered" in complaint(never_entered)
    unlogged = LedgerRows(service="s", calls=(), effects=(done,))
    assert "in no call" in complaint(unlogged)
    assert "not done before" in complaint(ledger("s", undone, done))
    again = effect("s1", "undo", key="undo-again", undoes="effect-s1")
    assert "undone twice" in complaint(ledger("s", done, undone, again))
    fence = effect("s1", "fence", key="undo-key", undoes="effect-s1")
    assert "after it was fenced" in complaint(ledger("s", fence, done))
