"""What clients send, read back as the orchestrator reads it."""

from collections.abc import Sequence

import pytest

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.client import Client, Composed, Composer
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import UnencodableError
from sagakit.contracts.messages import ControlMessage, decode_event, decode_inbox
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.topics import Topics
from sagakit.core import ids
from sagakit.core.address import Address
from sagakit.core.events import Control, ReplyTo, Signal, Start, TraceContext, Verb
from sagakit.core.ids import InvalidKeyError
from sagakit.core.placement import partition_of
from sagakit.core.values import Payload
from sagakit.ports.log import Outgoing, Record
from sagakit.ports.registry import UnknownSchemaError
from sagakit.ports.sending import Placed

ORDER = """{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "string"}, {"name": "cents", "type": "long"}]}"""
TOPICS = Topics(namespace="desk", topic_prefix="t.")
PARTITIONS = 12
TRACE = TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.register("shop.Order", ORDER)
    return registry


@pytest.fixture
def own(registry: MemoryRegistry) -> OwnRecords:
    return OwnRecords(registry, register=True)


@pytest.fixture
def composer(registry: MemoryRegistry, own: OwnRecords) -> Composer:
    return Composer(registry=registry, topics=TOPICS, partitions=PARTITIONS, own=own)


@pytest.fixture
def payload(composer: Composer) -> Payload:
    return composer.payload("shop.Order", {"id": "o-1", "cents": 5})


def arrived(composed: Composed, offset: int = 7) -> Record:
    record = composed.record
    return Record(record.topic, record.partition or 0, offset, 0, record.key, record.value, record.headers)


def codecs(registry: MemoryRegistry) -> PlainPayloadCodec:
    return PlainPayloadCodec(AvroCodec(registry))


def test_a_start_reaches_the_partition_of_its_saga_and_reads_as_it_was_meant(
    composer: Composer, payload: Payload, registry: MemoryRegistry, own: OwnRecords
) -> None:
    reply_to = ReplyTo(topic="answers", partition=3)
    composed = composer.start("order", "o-1", payload, at_ms=1, reply_to=reply_to, deadline_ms=500, trace=TRACE)
    saga_id = ids.saga_id("desk", "order", "o-1")
    assert composed.saga_id == saga_id
    assert composed.record.topic == "t.desk.saga.inbox"
    assert composed.record.partition == partition_of(saga_id.encode(), PARTITIONS)
    assert composed.record.key == saga_id.encode()
    event = decode_inbox(arrived(composed), own, codecs(registry))
    assert isinstance(event, Start)
    assert (event.definition, event.key, event.run) == ("order", "o-1", 7)
    assert (event.reply_to, event.deadline_ms, event.trace) == (reply_to, 500, TRACE)
    assert event.payload is not None
    assert event.payload.data == {"id": "o-1", "cents": 5}
    assert event.cause.message_id == composed.message_id


def test_the_same_start_has_the_same_id_and_another_payload_another(composer: Composer, payload: Payload) -> None:
    other = composer.payload("shop.Order", {"id": "o-1", "cents": 6})
    first, again, changed, chosen = (
        composer.start("order", "o-1", payload, at_ms=1),
        composer.start("order", "o-1", payload, at_ms=2),
        composer.start("order", "o-1", other, at_ms=1),
        composer.start("order", "o-1", payload, at_ms=1, message_id="mine"),
    )
    assert first.message_id == again.message_id
    assert len({first.message_id, changed.message_id, chosen.message_id}) == 3
    assert chosen.message_id == "mine"


def test_an_integer_key_is_its_decimal_text(composer: Composer, payload: Payload) -> None:
    assert (
        composer.start("order", 17, payload, at_ms=1).saga_id == composer.start("order", "17", payload, at_ms=1).saga_id
    )


def test_a_start_without_a_key_is_refused(composer: Composer, payload: Payload) -> None:
    with pytest.raises(InvalidKeyError):
        composer.start("order", "", payload, at_ms=1)


def test_a_signal_reads_as_it_was_meant(
    composer: Composer, payload: Payload, registry: MemoryRegistry, own: OwnRecords
) -> None:
    saga_id = composer.saga_id("order", "o-1")
    composed = composer.signal(saga_id, "approved", payload, at_ms=1, keep_ms=9_000, message_id="m-1")
    event = decode_inbox(arrived(composed), own, codecs(registry))
    assert isinstance(event, Signal)
    assert (event.name, event.keep_ms, event.cause.message_id) == ("approved", 9_000, "m-1")
    assert composer.signal(saga_id, "a", at_ms=1).message_id != composer.signal(saga_id, "a", at_ms=1).message_id


def test_a_control_says_who_and_why(
    composer: Composer, payload: Payload, registry: MemoryRegistry, own: OwnRecords
) -> None:
    message = ControlMessage(
        saga_id=composer.saga_id("order", "o-1"),
        verb=Verb.SKIP,
        actor="kim",
        reason="booked by phone",
        ticket="T-1",
        address=Address("ship"),
        payload=payload,
    )
    event = decode_inbox(arrived(composer.control(message, at_ms=1)), own, codecs(registry))
    assert isinstance(event, Control)
    assert (event.verb, event.address) == (Verb.SKIP, "ship")
    assert (event.cause.actor, event.cause.reason, event.cause.ticket) == ("kim", "booked by phone", "T-1")


def test_a_domain_event_is_keyed_by_its_business_key(
    composer: Composer, payload: Payload, registry: MemoryRegistry
) -> None:
    composed = composer.event("orders.events", "o-1", "shop.Order", payload, at_ms=1, event_id="e-1", trace=TRACE)
    assert (composed.record.topic, composed.record.key, composed.record.partition) == ("t.orders.events", b"o-1", None)
    event = decode_event(arrived(composed), codecs(registry))
    assert (event.cause.message_id, event.trace, event.opened.type) == ("e-1", TRACE, "shop.Order")


def test_data_that_does_not_fit_names_the_field(composer: Composer) -> None:
    with pytest.raises(UnencodableError, match="cents"):
        composer.payload("shop.Order", {"id": "o-1", "cents": "five"})


def test_a_record_that_is_not_registered_is_named_with_the_remedy(composer: Composer) -> None:
    with pytest.raises(UnknownSchemaError, match=r"shop\.Unknown.*schemas register"):
        composer.payload("shop.Unknown", {})


class Mailbox:
    """A sender that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.closed = False

    def send(self, records: Sequence[Outgoing]) -> Sequence[Placed]:
        self.sent += [type(record).__name__ for record in records]
        return [Placed("inbox", 0, offset) for offset, _ in enumerate(records)]

    def close(self) -> None:
        self.closed = True


def test_a_client_sends_many_at_once_and_says_where_each_lies(composer: Composer, payload: Payload) -> None:
    mailbox = Mailbox()
    with Client(composer, mailbox) as client:
        messages = [client.compose.start("order", f"o-{n}", payload, at_ms=1) for n in range(3)]
        placed = client.send(messages)
    assert [one.placed.offset for one in placed] == [0, 1, 2]
    assert [one.saga_id for one in placed] == [message.saga_id for message in messages]
    assert mailbox.closed
