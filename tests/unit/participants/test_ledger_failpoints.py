"""Where the shop's services kill themselves on purpose: the ledger shows that each death was where it says."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sagakit.failpoints import read_log
from services.books import read_shop

HANDLERS = """
import sys
from sagakit.core.events import Source
from sagakit.participants import Context, EventContext, Rejected
from services.inventory import app as inventory
from services.payments import app as payments
from services.shop_models import ChargeCard, OrderConfirmed, RefundCard

def context(key, undoes=None):
    return Context(
        service="payments", saga_id="s", key="o", run=1, address="charge",
        direction="compensation" if undoes else "forward",
        attempt=1, command_id=f"command-{key}", idempotency_key=key, undoes=undoes, correlation_id="s", expires_at_ms=0,
        trace=None, source=Source(topic="payments.commands", partition=0, offset=0),
    )

def charge(key, card):
    payments.charge(
        ChargeCard(order_id="o", customer_id="c", amount_cents=1, currency="EUR", card_token=card), context(key)
    )

match sys.argv[1]:
    case "charge":
        charge("k", "card-visa")
    case "without effect":
        try:
            charge("declined", "card-declined")
        except Rejected:
            pass
        payments.refund(RefundCard(order_id="o"), context("undo", "never"))
    case "event":
        event = EventContext(
            service="inventory", event_id="e", type="shop.orders.OrderConfirmed", key="o", attempt=1,
            correlation_id="s", causation_id=None, trace=None,
            source=Source(topic="orders.events", partition=0, offset=0),
        )
        inventory.hand_over(
            OrderConfirmed(order_id="o", customer_id="c", amount_cents=1, parcel_id="p", carrier="c"), event
        )
"""


def run(folder: Path, what: str, *points: str) -> int:
    """Call handlers in a process in which these points kill; gives its exit code."""
    armed = {
        "SAGAKIT_FAILPOINTS": ";".join(f"participant.{point}=kill@1" for point in points),
        "SAGAKIT_FAILPOINT_LOG": str(folder / "kills"),
        "SHOP_DATA": str(folder),
    }
    command = [sys.executable, "-c", HANDLERS, what]
    return subprocess.run(command, env={**os.environ, **armed}, timeout=60, check=False).returncode


@pytest.mark.parametrize(
    ("point", "rows"),
    [
        ("in-handler", ["entry"]),
        ("in-local-transaction", ["entry"]),
        ("between-effect-and-reply", ["entry", "effect"]),
    ],
)
def test_a_death_leaves_in_the_ledger_what_its_place_says(tmp_path: Path, point: str, rows: list[str]) -> None:
    assert run(tmp_path, "charge", point) == -signal.SIGKILL
    calls = read_shop(tmp_path).ledgers["payments"].calls
    (death,) = read_log(tmp_path / "kills")
    assert [(call.what, call.command_id, call.process_id) for call in calls] == [
        (what, death.detail, death.pid) for what in rows
    ]


def test_what_was_answered_from_the_ledger_is_no_effect_before_its_reply(tmp_path: Path) -> None:
    assert run(tmp_path, "charge") == 0
    assert run(tmp_path, "charge", "between-effect-and-reply") == 0


def test_without_an_effect_nobody_dies_between_it_and_its_reply(tmp_path: Path) -> None:
    assert run(tmp_path, "without effect", "between-effect-and-reply") == 0
    assert [call.what for call in read_shop(tmp_path).ledgers["payments"].calls][1::2] == ["rejection", "fence"]


def test_an_event_has_no_reply_to_die_before(tmp_path: Path) -> None:
    assert run(tmp_path, "event", "in-handler", "in-local-transaction", "between-effect-and-reply") == 0
    assert [call.what for call in read_shop(tmp_path).ledgers["inventory"].calls] == ["entry", "effect"]
