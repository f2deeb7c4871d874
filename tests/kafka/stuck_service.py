"""A service whose handlers do not end: each leaves a file in `SHOP_DATA` and stays."""

import os
import threading
from pathlib import Path

from sagakit.participants import Context, Service
from services.shop_models import CardCharged, ChargeCard

app = Service("payments")


@app.command
def charge(command: ChargeCard, ctx: Context) -> CardCharged:
    (Path(os.environ["SHOP_DATA"]) / f"entered-{ctx.saga_id}").touch()
    threading.Event().wait()
    return CardCharged(payment_id=ctx.idempotency_key, charged_cents=command.amount_cents)
