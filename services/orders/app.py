"""Orders: enters an order as confirmed, the last step of its saga. The saga's definition lies beside this file."""

import sqlite3

from sagakit.participants import Context, Service
from services.ledger import Ledger
from services.shop_models import MarkConfirmed, OrderMarked

BOOKS = """
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT NOT NULL,
    saga_id TEXT NOT NULL,
    status TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    parcel_id TEXT NOT NULL,
    PRIMARY KEY (order_id, saga_id)
);
"""

app = Service("orders", owner="team-orders")
ledger = Ledger("orders", BOOKS)


@app.command
def mark_confirmed(command: MarkConfirmed, ctx: Context) -> OrderMarked:
    """Enter an order as confirmed."""

    def effect(books: sqlite3.Connection) -> OrderMarked:
        books.execute(
            "INSERT INTO orders VALUES (?, ?, 'confirmed', ?, ?)",
            (command.order_id, ctx.saga_id, command.payment_id, command.parcel_id),
        )
        return OrderMarked(order_id=command.order_id, status="confirmed")

    return ledger.once(ctx, OrderMarked, effect)
