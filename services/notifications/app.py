"""Notifications: tells the customer how an order ended. It only reacts to events; no saga knows of it."""

import sqlite3

from sagakit.participants import EventContext, Service
from services.ledger import Ledger
from services.shop_models import OrderConfirmed, OrderRejected

BOOKS = """
CREATE TABLE IF NOT EXISTS notifications (
    event_id TEXT PRIMARY KEY,
    saga_id TEXT NOT NULL,
    order_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('confirmed', 'rejected')),
    message TEXT NOT NULL
);
"""

app = Service("notifications", owner="team-customers")
ledger = Ledger("notifications", BOOKS)


@app.event("orders.events")
def tell_confirmed(event: OrderConfirmed, ctx: EventContext) -> None:
    """Tell that the parcel is on its way."""
    tracking = "" if event.tracking is None else f", tracking number {event.tracking}"
    _send(ctx, event.order_id, "confirmed", f"Your order {event.order_id} comes with {event.carrier}{tracking}.")


@app.event("orders.events")
def tell_rejected(event: OrderRejected, ctx: EventContext) -> None:
    """Tell that nothing comes and nothing is to pay."""
    reason = event.code or event.reason
    _send(ctx, event.order_id, "rejected", f"We could not take your order {event.order_id}: {reason}.")


def _send(ctx: EventContext, order_id: str, kind: str, message: str) -> None:
    """One notification an event: the table stands for the mail that is sent."""

    def effect(books: sqlite3.Connection) -> None:
        books.execute(
            "INSERT INTO notifications VALUES (?, ?, ?, ?, ?)",
            (ctx.event_id, ctx.correlation_id or "", order_id, kind, message),
        )

    ledger.notice(ctx, effect)
