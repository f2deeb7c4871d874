"""Payments: charges cards and gives the money back."""

import sqlite3
from typing import Final

from sagakit.participants import Context, Rejected, Service
from services.ledger import Ledger
from services.shop_models import CardCharged, CardRefunded, ChargeCard, RefundCard

BOOKS = """
CREATE TABLE IF NOT EXISTS payments (
    payment_id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL,
    saga_id TEXT NOT NULL,
    charged_cents INTEGER NOT NULL CHECK (charged_cents >= 0),
    refunded_cents INTEGER NOT NULL CHECK (refunded_cents IN (0, charged_cents))
);
"""

DECLINED: Final = {
    "card-declined": "the bank declines the card",
    "card-expired": "the card has expired",
    "card-limit": "the amount is above the card's limit",
}
"""Card tokens that begin so are declined, with these words."""

app = Service("payments", owner="team-payments")
ledger = Ledger("payments", BOOKS)


@app.command
def charge(command: ChargeCard, ctx: Context) -> CardCharged:
    """Charge an order to its card."""

    def effect(books: sqlite3.Connection) -> CardCharged:
        for beginning, words in DECLINED.items():
            if command.card_token.startswith(beginning):
                raise Rejected("CARD_DECLINED", words)
        payment_id = f"payment-{ctx.idempotency_key}"
        books.execute(
            "INSERT INTO payments VALUES (?, ?, ?, ?, 0)",
            (payment_id, command.order_id, ctx.saga_id, command.amount_cents),
        )
        return CardCharged(payment_id=payment_id, charged_cents=command.amount_cents)

    return ledger.once(ctx, CardCharged, effect)


@app.compensation
def refund(command: RefundCard, ctx: Context) -> CardRefunded:
    """Give back what an order was charged."""

    def undo(books: sqlite3.Connection) -> CardRefunded:
        payment_id = f"payment-{ctx.undoes}"
        books.execute("UPDATE payments SET refunded_cents = charged_cents WHERE payment_id = ?", (payment_id,))
        (cents,) = books.execute("SELECT refunded_cents FROM payments WHERE payment_id = ?", (payment_id,)).fetchone()
        return CardRefunded(order_id=command.order_id, refunded_cents=cents)

    return ledger.undo(ctx, CardRefunded, undo, lambda: CardRefunded(order_id=command.order_id, refunded_cents=0))
