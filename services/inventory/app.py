"""Inventory: reserves stock for an order, puts it back, and hands it over once the order is confirmed."""

import sqlite3

from sagakit.participants import Context, EventContext, Rejected, Service
from services.inventory.catalogue import CATALOGUE
from services.ledger import Ledger
from services.shop_models import OrderConfirmed, ReleaseStock, ReserveStock, StockReleased, StockReserved

_STOCK = ", ".join(
    f"('{article.sku}', {article.opening_stock}, 0, 0, {article.opening_stock})" for article in CATALOGUE
)

BOOKS = f"""
CREATE TABLE IF NOT EXISTS stock (
    sku TEXT PRIMARY KEY,
    on_hand INTEGER NOT NULL CHECK (on_hand >= 0),
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    shipped INTEGER NOT NULL CHECK (shipped >= 0),
    opening INTEGER NOT NULL
);
INSERT OR IGNORE INTO stock VALUES {_STOCK};
CREATE TABLE IF NOT EXISTS reservations (
    order_id TEXT NOT NULL,
    saga_id TEXT NOT NULL,
    sku TEXT NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    state TEXT NOT NULL CHECK (state IN ('reserved', 'released', 'shipped')),
    reservation_id TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS reservations_by_order ON reservations (order_id);
"""
"""`on_hand + reserved + shipped = opening`, for each article, at any time."""

app = Service("inventory", owner="team-warehouse")
ledger = Ledger("inventory", BOOKS)


@app.command
def reserve(command: ReserveStock, ctx: Context) -> StockReserved:
    """Reserve all items of an order, or none."""

    def effect(books: sqlite3.Connection) -> StockReserved:
        reservation_id = f"reservation-{ctx.idempotency_key}"
        for item in command.items:
            taken = books.execute(
                "UPDATE stock SET on_hand = on_hand - :n, reserved = reserved + :n WHERE sku = :sku AND on_hand >= :n",
                {"n": item.quantity, "sku": item.sku},
            ).rowcount
            if not taken:
                raise Rejected("OUT_OF_STOCK", f"not enough of {item.sku}", {"sku": item.sku})
            books.execute(
                "INSERT INTO reservations VALUES (?, ?, ?, ?, 'reserved', ?)",
                (command.order_id, ctx.saga_id, item.sku, item.quantity, reservation_id),
            )
        return StockReserved(reservation_id=reservation_id)

    return ledger.once(ctx, StockReserved, effect)


@app.compensation
def release(command: ReleaseStock, ctx: Context) -> StockReleased:
    """Put back what was reserved for an order."""

    def undo(books: sqlite3.Connection) -> StockReleased:
        reservation_id = f"reservation-{ctx.undoes}"
        released = _move(books, "reservation_id", reservation_id, column="on_hand", state="released")
        return StockReleased(order_id=command.order_id, released=released)

    return ledger.undo(ctx, StockReleased, undo, lambda: StockReleased(order_id=command.order_id, released=0))


@app.event("orders.events")
def hand_over(event: OrderConfirmed, ctx: EventContext) -> None:
    """The parcel of a confirmed order leaves the warehouse."""
    ledger.notice(ctx, lambda books: _move(books, "order_id", event.order_id, column="shipped", state="shipped"))


def _move(books: sqlite3.Connection, by: str, value: str, *, column: str, state: str) -> int:
    """Move what is reserved to another column of the stock; gives how many units."""
    rows = books.execute(
        f"SELECT sku, quantity FROM reservations WHERE {by} = ? AND state = 'reserved'", (value,)
    ).fetchall()
    for sku, quantity in rows:
        books.execute(
            f"UPDATE stock SET reserved = reserved - :n, {column} = {column} + :n WHERE sku = :sku",
            {"n": quantity, "sku": sku},
        )
    books.execute(f"UPDATE reservations SET state = ? WHERE {by} = ? AND state = 'reserved'", (state, value))
    return sum(quantity for _, quantity in rows)
