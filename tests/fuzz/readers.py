"""Who else reads what strangers may write: services their commands and events, tools and read models the backlog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts import framing
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import SchemaError, UndecodableError
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.transitions import UnknownKind, decode_transition, encode_transition
from sagakit.core.transitions import Transition
from sagakit.participants import Context, EventContext, Formats, Rejected, Service
from sagakit.participants.exchange import ServiceExchange
from sagakit.participants.workers import Call, Outcome
from sagakit.ports.log import Outgoing, Record
from sagakit.ports.registry import RegistryUnavailableError
from services.shop_models import CardCharged, CardRefunded, ChargeCard, OrderConfirmed, RefundCard
from tests.fuzz.makers import NAMESPACE
from tests.fuzz.mutations import mutated
from tests.fuzz.world import STRANGE, Registry, own_records
from tests.unit.participants import support

_CONFIRMED: Final[dict[str, Any]] = {
    "order_id": "order-1",
    "customer_id": "customer-1",
    "amount_cents": 4_200,
    "parcel_id": "parcel-1",
    "carrier": "Swift Parcel",
    "tracking": None,
}
_REFUND: Final[dict[str, Any]] = {"order_id": "order-1"}
_LATER_S: Final = 60.0
"""After so long a schema id that the registry denies is denied for good."""


def services(random: Random, count: int) -> Counter[str]:
    """Give a service wrong commands and events: each is handled, answered, dead-lettered or nobody's.

    Raises:
        Exception: whatever escapes is a bug.
    """
    registry = support.registered()
    for number, text in enumerate(STRANGE):
        _register(registry, f"strange-{number}", text)
    with_ = support.formats(registry)
    with_.own.prepare()
    clock_s = 0.0
    exchange = ServiceExchange(_payments(), with_, clock_ms=support.now_ms, clock=lambda: clock_s)
    exchange.prepare_schemas()
    whole = [support.received(one) for one in _whole(with_)]
    found: Counter[str] = Counter()
    for _ in range(count):
        record = random.choice(whole)
        record = mutated(random, record, with_.own) if random.random() < 0.9 else record
        exchange.likely_handler(record)
        try:
            prepared = exchange.prepare(record, may_have_begun=random.random() < 0.1)
        except RegistryUnavailableError:
            clock_s += _LATER_S
            prepared = exchange.prepare(record)
            found["denied"] += 1
        if isinstance(prepared, Call):
            found["handled"] += 1
            prepared = exchange.answer(record, prepared, _outcome(random, prepared))
        found["nobody's" if prepared is None else prepared.kind.value] += 1
    return found


def _register(registry: MemoryRegistry, subject: str, text: str) -> None:
    try:
        registry.register(subject, text)
    except (SchemaError, ValueError):  # this registry, too, refuses what is no schema
        return


def _payments() -> Service:
    service = Service("payments")

    @service.command
    def charge(command: ChargeCard, ctx: Context) -> CardCharged:
        raise AssertionError("the proof itself says what came of it")

    @service.compensation
    def refund(command: RefundCard, ctx: Context) -> CardRefunded:
        raise AssertionError("the proof itself says what came of it")

    @service.event("orders.events")
    def confirmed(event: OrderConfirmed, ctx: EventContext) -> None: ...

    return service


def _whole(with_: Formats) -> Sequence[Outgoing]:
    return (
        support.command(1, with_=with_),
        support.command(2, with_=with_, expires_at_ms=1),
        support.command(3, with_=with_, type_="shop.payments.RefundCard", data=_REFUND, undoes="effect"),
        support.command(4, with_=with_, type_="shop.payments.RefundCard", data=_REFUND),
        support.event("shop.orders.OrderConfirmed", _CONFIRMED, with_=with_),
    )


def _outcome(random: Random, call: Call) -> Outcome:
    text = random.choice(("", "\x00", "\ud800", "x" * 9_000))
    return random.choice(
        (
            CardCharged(payment_id=text, charged_cents=random.choice((1, 2**63))),
            CardRefunded(order_id="order-1", refunded_cents=-1),
            Rejected(text, text),
            ValueError(text),
            None,
        )
    )


def backlog(random: Random, transitions: Sequence[Transition], count: int) -> Counter[str]:
    """Read records of the backlog that were made wrong: each is a transition, or one of a kind unknown, or unreadable.

    Raises:
        Exception: whatever escapes is a bug.
    """
    registry = Registry()
    own, payloads = own_records(), PlainPayloadCodec(AvroCodec(registry))
    later = framing.prefix(registry.strange_ids[next(n for n, text in enumerate(STRANGE) if "Unheard" in text)])
    found: Counter[str] = Counter()
    for _ in range(count):
        key, value = encode_transition(random.choice(transitions), NAMESPACE, own, payloads)
        if random.random() < 0.05:
            value = later + b"\x06of "
        record = mutated(random, Record("backlog", 0, 0, 0, key, value, ()), own)
        try:
            decoded = decode_transition(record.value or b"", own, payloads)
        except UndecodableError:
            found["unreadable"] += 1
            continue
        found["unknown" if isinstance(decoded, UnknownKind) else "read"] += 1
    return found
