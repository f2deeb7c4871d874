"""What a message costs on the hot path, in microseconds of one core: `python tests/bench/contracts.py`."""

import json
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts import messages, schemas
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.envelope import Envelope
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.snapshots import decode_state, encode_state
from sagakit.contracts.topics import Topics
from sagakit.contracts.transitions import decode_transition, encode_transition
from sagakit.core import transitions as t
from sagakit.core.actions import SendCommand
from sagakit.core.address import Address
from sagakit.core.events import Cause, Outcome, Reply, Source, TraceContext
from sagakit.core.state import Saga, Status, Step, StepStatus
from sagakit.core.values import CONFLUENT, Payload, Value
from sagakit.ports.log import Outgoing, Record

SHOP: Final = Path(__file__).parents[2] / "schemas" / "shop"
SAGA: Final = "5a6a1d7e-4b1f-5c02-9d53-7361676b6974"
AT: Final = 1_795_000_000_123
TRACE: Final = TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
CHARGED: Final = "shop.payments.CardCharged"
SOURCE: Final = Source(topic="default.saga.inbox", partition=3, offset=123_456)
CAUSE: Final = Cause(message_id=SAGA, type=CHARGED, source=SOURCE)
ITEMS: Final[list[Value]] = [
    {"sku": "SKU-1", "quantity": 1, "unit_price_cents": 345},
    {"sku": "SKU-2", "quantity": 2, "unit_price_cents": 6000},
]
ORDER: Final[dict[str, Value]] = {
    "order_id": "order-000123",
    "customer_id": "customer-77",
    "customer_email": "someone@example.org",
    "amount_cents": 12_345,
    "currency": "EUR",
    "items": ITEMS,
    "address": {"street": "Main street 1", "city": "Town", "postal_code": "12345", "country": "DE"},
    "card_token": "tok_123456",
    "placed_at": "2026-11-23T14:05:09.123Z",
}
CHARGE: Final = {name: ORDER[name] for name in ("order_id", "customer_id", "amount_cents", "currency", "card_token")}
HEADER: Final = t.Header(
    saga_id=SAGA,
    run=123_400,
    seq=5,
    at_ms=AT,
    partition_ms=AT,
    definition="place-order",
    version=1,
    engine_level=1,
    step=Address("charge"),
    direction=t.Direction.FORWARD,
    attempt=1,
    cause=CAUSE,
    trace=TRACE,
)
STEPS: Final = {
    Address("reserve"): Step(status=StepStatus.SUCCEEDED, attempt=1),
    Address("charge"): Step(status=StepStatus.SUCCEEDED, attempt=1),
    Address("ship"): Step(status=StepStatus.IN_FLIGHT, attempt=1, due_at_ms=AT + 5_000),
}
LIVE: Final = Saga(
    saga_id=SAGA,
    run=123_400,
    seq=8,
    definition="place-order",
    version=1,
    engine_level=1,
    key="order-000123",
    status=Status.RUNNING,
    at_ms=AT,
    deadline_at_ms=AT + 900_000,
    start_message_id=SAGA,
    data={"start": ORDER, "reserve": {"reservation_id": "r-1"}, "charge": {"payment_id": "payment-1"}},
    steps=STEPS,
    trace=TRACE,
)
COMMAND: Final = SendCommand(
    saga_id=SAGA,
    run=123_400,
    address=Address("charge"),
    direction=t.Direction.FORWARD,
    attempt=1,
    command_id=SAGA,
    idempotency_key=SAGA,
    undoes=None,
    service="payments",
    type="shop.payments.ChargeCard",
    data=CHARGE,
    expires_at_ms=AT + 5_000,
    causation_id=SAGA,
    trace=TRACE,
)


def microseconds(work: Callable[[], Any], number: int = 5_000) -> float:
    """The best of five, since everything else on the machine only adds."""
    return min(timeit.repeat(work, number=number, repeat=5)) / number * 1e6


def as_read(outgoing: Outgoing) -> Record:
    """The record as its reader gets it."""
    return Record(outgoing.topic, 3, 5, AT, outgoing.key, outgoing.value, outgoing.headers)


def operations() -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    registry = MemoryRegistry()
    own = OwnRecords(registry, register=True)
    texts = schemas.load_folder(SHOP)
    for name, text in texts.items():
        registry.register(name, text)
    avro, topics = AvroCodec(registry), Topics()
    payloads = PlainPayloadCodec(avro)
    placed = avro.compile_schema(texts["shop.orders.OrderPlaced"])
    charge = avro.compile_schema(texts["shop.payments.ChargeCard"])
    order = avro.encode(placed, ORDER)
    charged: dict[str, Value] = {"payment_id": "payment-1", "charged_cents": 12_345}
    value = avro.encode(avro.compile_schema(texts[CHARGED]), charged)
    opened = payloads.open(Payload(framed=value, encoding=CONFLUENT))
    reply = Reply(cause=CAUSE, trace=TRACE, command_id=SAGA, outcome=Outcome.SUCCEEDED, payload=opened)
    scheduled = t.StepScheduled(header=HEADER, command_id=SAGA, data=CHARGE, due_at_ms=AT + 5_000)
    succeeded = t.StepSucceeded(header=HEADER, input=reply, kept={"payment_id": "payment-1"})
    command = as_read(messages.encode_command(COMMAND, charge, avro, topics, 3, AT))
    headers = messages.decode_command(command, payloads).headers
    envelope = Envelope(message_id=SAGA, source="/services/payments", at_ms=AT)
    inbox = as_read(messages.encode_reply(headers, CHARGED, value, envelope))
    transition = encode_transition(succeeded, "default", own, payloads)[1]
    state = encode_state(LIVE, own, payloads)
    return {
        "record decode (order)": lambda: avro.decode(order),
        "record encode (order)": lambda: avro.encode(placed, ORDER),
        "transition encode (StepScheduled)": lambda: encode_transition(scheduled, "default", own, payloads),
        "transition encode (with input)": lambda: encode_transition(succeeded, "default", own, payloads),
        "transition decode (with input)": lambda: decode_transition(transition, own, payloads),
        "snapshot encode (3 steps)": lambda: encode_state(LIVE, own, payloads),
        "snapshot decode (3 steps)": lambda: decode_state(state, own, payloads),
        "command encode": lambda: messages.encode_command(COMMAND, charge, avro, topics, 3, AT),
        "command decode": lambda: messages.decode_command(command, payloads),
        "reply encode": lambda: messages.encode_reply(headers, CHARGED, value, envelope),
        "reply decode (inbox)": lambda: messages.decode_inbox(inbox, own, payloads),
    }


def main() -> None:
    """Measure each operation and print a line of JSON each."""
    for name, work in operations().items():
        print(json.dumps({"operation": name, "us": round(microseconds(work), 1)}))


if __name__ == "__main__":
    main()
