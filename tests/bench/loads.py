"""What a run puts an engine through: the order saga, or another number of steps, other payloads and partitions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PARTITIONS: Final = 4

THREE_STEPS: Final = Path(__file__).with_name("three_steps.yaml")

_STEP: Final = """\
  step{number}:{after}
    service: inventory
    command: shop.inventory.ReserveStock
    with: {{order_id: start.order_id, items: start.items}}
    reply: shop.inventory.StockReserved
    timeout: 60s
    compensate:
      command: shop.inventory.ReleaseStock
      with: {{order_id: start.order_id}}
      reply: shop.inventory.StockReleased
"""

_ROW: Final = """\
saga: {saga}
version: 1
owner: bench
impact: low
start: shop.orders.OrderPlaced
key: start.order_id
again: never
deadline: 15m
dedupe: 1h
steps:
{steps}end:
  completed:
    publish: shop.orders.OrderConfirmed
    with:
      order_id: start.order_id
      customer_id: start.customer_id
      amount_cents: start.amount_cents
      parcel_id: start.order_id
      carrier: start.currency
      tracking: start.order_id
    to: ended.events
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One kind of saga, and how it is run.

    Attributes:
        steps: None for the order saga; a number for so many equal steps in a row.
        payload_bytes: how long the card token of each order is, which its saga keeps and a command carries on.
        failing: the third step is always rejected.
        triggered: started by domain events instead of through the inbox.
        standing: how many sagas wait in the state topic before the run begins.
    """

    steps: int | None = None
    payload_bytes: int = 8
    partitions: int = PARTITIONS
    failing: bool = False
    triggered: bool = False
    orchestrators: int = 1
    standing: int = 0

    @property
    def saga(self) -> str:
        """The name of its definition."""
        return "three-steps" if self.steps is None else f"row-of-{self.steps}"

    @property
    def definition(self) -> str:
        """The text of its definition."""
        if self.steps is None:
            return THREE_STEPS.read_text()
        steps = (
            _STEP.format(number=number, after=f"\n    after: [step{number - 1}]" if number else "")
            for number in range(self.steps)
        )
        return _ROW.format(saga=self.saga, steps="".join(steps))


ORDERS: Final = Load()
"""The order saga as it is compared with the floor."""
