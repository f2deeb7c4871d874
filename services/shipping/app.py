"""Shipping: books a parcel with the carrier of the country. A booked parcel is on its way: nothing undoes it."""

import asyncio
import sqlite3
import time

from sagakit.participants import Context, Rejected, Service
from services.ledger import Ledger
from services.shipping.carriers import CARRIERS, LATE_BY_S, Carrier
from services.shop_models import BookParcel, ParcelBooked

BOOKS = """
CREATE TABLE IF NOT EXISTS parcels (
    parcel_id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL,
    saga_id TEXT NOT NULL,
    carrier TEXT NOT NULL,
    tracking TEXT
);
"""

app = Service("shipping", owner="team-logistics")
ledger = Ledger("shipping", BOOKS)


class CarrierUnreachable(Exception):
    """The carrier did not answer; it may have booked the parcel or not."""


@app.command
async def book(command: BookParcel, ctx: Context) -> ParcelBooked:
    """Book a parcel for an order."""
    carrier = CARRIERS.get(command.address.country)

    def effect(books: sqlite3.Connection) -> ParcelBooked:
        if carrier is None:
            raise Rejected("ADDRESS_NOT_SERVED", f"no carrier serves {command.address.country}")
        if ctx.attempt < carrier.failing_attempts:
            raise CarrierUnreachable(f"{carrier.name} does not answer")
        parcel_id = f"parcel-{ctx.idempotency_key}"
        tracking = f"T{ctx.idempotency_key[:8].upper()}" if carrier.tracks else None
        books.execute(
            "INSERT INTO parcels VALUES (?, ?, ?, ?, ?)",
            (parcel_id, command.order_id, ctx.saga_id, carrier.name, tracking),
        )
        return ParcelBooked(parcel_id=parcel_id, carrier=carrier.name, tracking=tracking)

    booked = ledger.once(ctx, ParcelBooked, effect)
    if carrier is not None:
        await _answer_of(carrier, ctx)
    return booked


async def _answer_of(carrier: Carrier, ctx: Context) -> None:
    """Wait as long as the carrier takes to answer.

    Raises:
        CarrierUnreachable: it books, but its answer gets lost.
    """
    if not carrier.answers:
        raise CarrierUnreachable(f"{carrier.name} never answered")
    if ctx.attempt <= carrier.late_attempts:
        await asyncio.sleep(max(0.0, ctx.expires_at_ms / 1000 - time.time()) + LATE_BY_S)
    elif ctx.attempt == carrier.failing_attempts:
        raise CarrierUnreachable(f"{carrier.name} broke off")
    else:
        await asyncio.sleep(carrier.answers_after_s)
