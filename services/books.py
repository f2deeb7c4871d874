"""Reads what the services have in their databases, for the audit. Read-only: it may look on while they work."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from services.audit import Call, Effect, LedgerRows, NotificationRow, PaymentRow, ReservationRow, ShopRows, StockRow

SERVICES: Final = ("inventory", "payments", "shipping", "orders", "notifications")


def read_shop(folder: Path) -> ShopRows:
    """All rows of all services under `folder`. A service that was never called has no database, and no rows."""
    return ShopRows(
        ledgers={service: _ledger(folder, service) for service in SERVICES},
        payments=[
            PaymentRow(**row)
            for row in _rows(
                folder, "payments", "payments", "payment_id, order_id, saga_id, charged_cents, refunded_cents"
            )
        ],
        stock=[
            StockRow(**row) for row in _rows(folder, "inventory", "stock", "sku, on_hand, reserved, shipped, opening")
        ],
        reservations=[
            ReservationRow(**row)
            for row in _rows(folder, "inventory", "reservations", "order_id, saga_id, sku, quantity, state")
        ],
        notifications=[
            NotificationRow(**row)
            for row in _rows(folder, "notifications", "notifications", "event_id, saga_id, order_id, kind")
        ],
    )


def _ledger(folder: Path, service: str) -> LedgerRows:
    calls = "id, what, saga_id, step, direction, attempt, command_id, idempotency_key, undoes, process_id, at_ms"
    effects = "idempotency_key, what, saga_id, undoes, at_ms"
    return LedgerRows(
        service=service,
        calls=tuple(Call(**row) for row in _rows(folder, service, "calls", calls)),
        effects=tuple(Effect(**row) for row in _rows(folder, service, "effects", effects)),
    )


def _rows(folder: Path, service: str, table: str, columns: str) -> list[dict[str, Any]]:
    """The rows of a table in the order in which they were written."""
    path = folder / f"{service}.sqlite"
    if not path.exists():
        return []
    with _open(path) as connection:
        return [dict(row) for row in connection.execute(f"SELECT {columns} FROM {table} ORDER BY rowid")]


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection
