"""Messages: what one side encodes the other side reads; what is malformed is undecodable, with a reason."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts import envelope as env
from sagakit.contracts import messages, schemas
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.envelope import Envelope
from sagakit.contracts.errors import UndecodableError
from sagakit.contracts.messages import ControlMessage, SignalMessage, StartMessage
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.topics import Topics
from sagakit.core.actions import PublishEvent, SendCommand, SendResult
from sagakit.core.address import Address
from sagakit.core.events import Control, Outcome, Reply, ReplyTo, Signal, Source, Start, TraceContext, Verb
from sagakit.core.transitions import Direction
from sagakit.core.values import CONFLUENT, Payload
from sagakit.ports.log import Headers, Outgoing, Record
from tests.unit.contracts.shop import SHOP

TRACE = TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate="a=b")
TOPICS = Topics(namespace="test", topic_prefix="p.")
ENVELOPE = Envelope(message_id="m-1", source="/services/payments", at_ms=1_795_000_000_123)


@pytest.fixture(scope="module")
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    for name, text in schemas.load_folder(SHOP).items():
        registry.register(name, text)
    return registry


@pytest.fixture(scope="module")
def own(registry: MemoryRegistry) -> OwnRecords:
    return OwnRecords(registry, register=True)


@pytest.fixture(scope="module")
def avro(registry: MemoryRegistry) -> AvroCodec:
    return AvroCodec(registry)


@pytest.fixture(scope="module")
def payloads(avro: AvroCodec) -> PlainPayloadCodec:
    return PlainPayloadCodec(avro)


def as_read(outgoing: Outgoing, offset: int = 77) -> Record:
    return Record(outgoing.topic, 3, offset, 1_795_000_000_200, outgoing.key, outgoing.value, outgoing.headers)


def changed(record: Record, name: str, value: bytes | None) -> Record:
    """The record with one header changed, or removed."""
    headers = [(one, old) for one, old in record.headers if one != name]
    return record._replace(headers=headers if value is None else [*headers, (name, value)])


COMMAND = SendCommand(
    saga_id="saga-1",
    run=41,
    address=Address("charge"),
    direction=Direction.FORWARD,
    attempt=2,
    command_id="command-1",
    idempotency_key="effect-1",
    undoes=None,
    service="payments",
    type="shop.payments.RefundCard",
    data={"order_id": "o-1"},
    expires_at_ms=1_795_000_005_000,
    causation_id="cause-1",
    trace=TRACE,
)


def sent(action: SendCommand, avro: AvroCodec) -> Record:
    schema = avro.compile_schema(schemas.load_folder(SHOP)[action.type])
    return as_read(messages.encode_command(action, schema, avro, TOPICS, 3, 1_795_000_000_123, key="o-1"))


@pytest.mark.parametrize("undoes", [None, "effect-0"])
@pytest.mark.parametrize("trace", [None, TRACE, TraceContext(traceparent=TRACE.traceparent)])
def test_a_participant_reads_the_command_that_was_sent(
    undoes: str | None, trace: TraceContext | None, avro: AvroCodec, payloads: PlainPayloadCodec
) -> None:
    direction = Direction.FORWARD if undoes is None else Direction.COMPENSATION
    record = sent(replace(COMMAND, undoes=undoes, trace=trace, direction=direction), avro)
    command = messages.decode_command(record, payloads)
    headers = command.headers
    assert (record.topic, record.key) == ("p.payments.commands", b"saga-1")
    assert command.opened.data == COMMAND.data
    assert (headers.saga_id, headers.run, headers.address, headers.attempt) == ("saga-1", 41, "charge", 2)
    assert headers.key == "o-1"
    assert (headers.command_id, headers.idempotency_key, headers.undoes) == ("command-1", "effect-1", undoes)
    assert (headers.direction, headers.trace, headers.causation_id) == (direction, trace, "cause-1")
    assert headers.reply_to == ReplyTo(topic="p.test.saga.inbox", partition=3)
    assert headers.expires_at_ms == COMMAND.expires_at_ms


def test_a_command_carries_all_headers_of_the_protocol(avro: AvroCodec) -> None:
    headers = dict(sent(replace(COMMAND, undoes="effect-0"), avro).headers)
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": b"command-1",
        "ce_type": b"shop.payments.RefundCard",
        "ce_source": b"/sagakit/test",
        "ce_time": b"2026-11-18T11:06:40.123Z",
        "ce_correlationid": b"saga-1",
        "ce_causationid": b"cause-1",
        "traceparent": TRACE.traceparent.encode(),
        "tracestate": b"a=b",
        "sagakit_idempotency_key": b"effect-1",
        "sagakit_undoes": b"effect-0",
        "sagakit_key": b"o-1",
        "sagakit_run": b"41",
        "sagakit_address": b"charge",
        "sagakit_attempt": b"2",
        "sagakit_expires_at": b"1795000005000",
        "sagakit_reply_topic": b"p.test.saga.inbox",
        "sagakit_reply_partition": b"3",
    }


REQUIRED = [
    "ce_id",
    "ce_type",
    "ce_correlationid",
    "sagakit_idempotency_key",
    "sagakit_run",
    "sagakit_address",
    "sagakit_attempt",
    "sagakit_expires_at",
    "sagakit_reply_topic",
    "sagakit_reply_partition",
]


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe"])
def test_a_command_without_a_header_is_undecodable(
    name: str, value: bytes | None, avro: AvroCodec, payloads: PlainPayloadCodec
) -> None:
    with pytest.raises(UndecodableError, match=name):
        messages.decode_command(changed(sent(COMMAND, avro), name, value), payloads)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sagakit_run", b"12x"),
        ("sagakit_run", b"9223372036854775808"),
        ("sagakit_attempt", "٣".encode()),
        ("sagakit_reply_partition", b"-1"),
        ("sagakit_reply_partition", b"2147483648"),
        ("sagakit_address", b"Not An Address"),
        ("ce_type", b"shop.payments.ChargeCard"),
    ],
)
def test_a_command_with_a_malformed_header_is_undecodable(
    name: str, value: bytes, avro: AvroCodec, payloads: PlainPayloadCodec
) -> None:
    with pytest.raises(UndecodableError, match=name):
        messages.decode_command(changed(sent(COMMAND, avro), name, value), payloads)


def test_headers_can_be_read_where_the_value_cannot(avro: AvroCodec, payloads: PlainPayloadCodec) -> None:
    record = sent(COMMAND, avro)._replace(value=b"garbage")
    with pytest.raises(UndecodableError, match="wire format"):
        messages.decode_command(record, payloads)
    assert env.read_command_headers(record).command_id == "command-1"


@pytest.fixture
def headers(avro: AvroCodec, payloads: PlainPayloadCodec) -> env.CommandHeaders:
    return messages.decode_command(sent(COMMAND, avro), payloads).headers


def test_the_orchestrator_reads_a_success(
    headers: env.CommandHeaders, avro: AvroCodec, own: OwnRecords, payloads: PlainPayloadCodec
) -> None:
    refunded = avro.compile_schema(schemas.load_folder(SHOP)["shop.payments.CardRefunded"])
    value = avro.encode(refunded, {"order_id": "o-1", "refunded_cents": 5})
    outgoing = messages.encode_reply(headers, refunded.name, value, ENVELOPE)
    assert (outgoing.topic, outgoing.partition, outgoing.key) == ("p.test.saga.inbox", 3, b"saga-1")
    reply = messages.decode_inbox(as_read(outgoing), own, payloads)
    assert isinstance(reply, Reply)
    assert (reply.command_id, reply.outcome, reply.code, reply.message) == ("command-1", Outcome.SUCCEEDED, None, None)
    assert reply.payload is not None
    assert reply.payload.data == {"order_id": "o-1", "refunded_cents": 5}
    assert reply.payload.payload == Payload(framed=value, encoding=CONFLUENT)
    assert reply.cause.source == Source(topic="p.test.saga.inbox", partition=3, offset=77)
    assert (reply.cause.message_id, reply.cause.type) == ("m-1", "shop.payments.CardRefunded")
    assert reply.trace == TRACE, "the reply goes on with the command's trace"


Encode = Callable[[env.CommandHeaders, OwnRecords], Outgoing]


@pytest.mark.parametrize(
    ("encode", "outcome", "code", "message"),
    [
        pytest.param(
            lambda headers, own: messages.encode_rejected(headers, "DECLINED", "no", {"a": "b"}, own, ENVELOPE),
            Outcome.REJECTED,
            "DECLINED",
            "no",
            id="rejected",
        ),
        pytest.param(
            lambda headers, own: messages.encode_failed(headers, "TimeoutError", None, own, ENVELOPE),
            Outcome.FAILED,
            "TimeoutError",
            None,
            id="failed",
        ),
        pytest.param(
            lambda headers, own: messages.encode_expired(headers, own, ENVELOPE),
            Outcome.EXPIRED,
            None,
            None,
            id="expired",
        ),
    ],
)
def test_the_orchestrator_reads_the_other_outcomes(
    encode: Encode,
    outcome: Outcome,
    code: str | None,
    message: str | None,
    headers: env.CommandHeaders,
    own: OwnRecords,
    payloads: PlainPayloadCodec,
) -> None:
    record = as_read(encode(headers, own))
    reply = messages.decode_inbox(record, own, payloads)
    assert isinstance(reply, Reply)
    assert (reply.outcome, reply.code, reply.message) == (outcome, code, message)
    assert reply.command_id == "command-1"
    for other in Outcome:
        if other is not outcome:
            with pytest.raises(UndecodableError, match="sagakit_outcome"):
                messages.decode_inbox(changed(record, env.OUTCOME, other.value.encode()), own, payloads)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ce_causationid", None), ("sagakit_outcome", b"perhaps"), ("sagakit_outcome", b""), ("sagakit_outcome", None)],
)
def test_a_reply_without_command_or_outcome_is_undecodable(
    name: str, value: bytes | None, headers: env.CommandHeaders, own: OwnRecords, payloads: PlainPayloadCodec
) -> None:
    record = as_read(messages.encode_expired(headers, own, ENVELOPE))
    with pytest.raises(UndecodableError, match=name):
        messages.decode_inbox(changed(record, name, value), own, payloads)


def order_payload(avro: AvroCodec) -> Payload:
    schema = avro.compile_schema(schemas.load_folder(SHOP)["shop.payments.RefundCard"])
    return Payload(framed=avro.encode(schema, {"order_id": "o-1"}), encoding=CONFLUENT)


@pytest.mark.parametrize("reply_to", [None, ReplyTo(topic="results", partition=2)])
@pytest.mark.parametrize("deadline_ms", [None, 5_000])
def test_a_start_is_read_as_it_was_sent(
    reply_to: ReplyTo | None,
    deadline_ms: int | None,
    avro: AvroCodec,
    own: OwnRecords,
    payloads: PlainPayloadCodec,
) -> None:
    message = StartMessage(
        saga_id="saga-1",
        definition="place-order",
        key="o-1",
        payload=order_payload(avro),
        reply_to=reply_to,
        deadline_ms=deadline_ms,
    )
    outgoing = messages.encode_start(message, replace(ENVELOPE, trace=TRACE), own, TOPICS, 3)
    record = as_read(outgoing)
    start = messages.decode_inbox(record, own, payloads)
    assert isinstance(start, Start)
    assert messages.saga_id_of(record) == "saga-1"
    assert (outgoing.topic, outgoing.partition) == ("p.test.saga.inbox", 3)
    assert (start.definition, start.key, start.run) == ("place-order", "o-1", 77)
    assert (start.reply_to, start.deadline_ms, start.trace) == (reply_to, deadline_ms, TRACE)
    assert start.payload == payloads.open(message.payload)
    assert start.cause.message_id == "m-1"


def test_a_start_without_a_key_is_undecodable(avro: AvroCodec, own: OwnRecords, payloads: PlainPayloadCodec) -> None:
    message = StartMessage(saga_id="saga-1", definition="place-order", key="", payload=order_payload(avro))
    record = as_read(messages.encode_start(message, ENVELOPE, own, TOPICS))
    with pytest.raises(UndecodableError, match="business key"):
        messages.decode_inbox(record, own, payloads)


@pytest.mark.parametrize("duration_ms", [0, -1, 2**63 - 1])
def test_a_duration_that_no_time_can_be_made_of_is_undecodable(
    duration_ms: int, avro: AvroCodec, own: OwnRecords, payloads: PlainPayloadCodec
) -> None:
    """Added to the time, the largest no longer fits on the wire: that once ended the orchestrator, again and again."""
    payload = order_payload(avro)
    start = StartMessage(saga_id="s", definition="place-order", key="k", payload=payload, deadline_ms=duration_ms)
    signal = SignalMessage(saga_id="s", name="paid", payload=payload, keep_ms=duration_ms)
    for sent in (
        messages.encode_start(start, ENVELOPE, own, TOPICS),
        messages.encode_signal(signal, ENVELOPE, own, TOPICS),
    ):
        with pytest.raises(UndecodableError, match="at most ten years"):
            messages.decode_inbox(as_read(sent), own, payloads)


@pytest.mark.parametrize("with_payload", [True, False])
def test_a_signal_is_read_as_it_was_sent(
    with_payload: bool, avro: AvroCodec, own: OwnRecords, payloads: PlainPayloadCodec
) -> None:
    payload = order_payload(avro) if with_payload else None
    message = SignalMessage(saga_id="saga-1", name="paid", payload=payload, keep_ms=5)
    signal = messages.decode_inbox(as_read(messages.encode_signal(message, ENVELOPE, own, TOPICS)), own, payloads)
    assert isinstance(signal, Signal)
    assert (signal.name, signal.keep_ms) == ("paid", 5)
    assert (signal.payload and signal.payload.payload) == payload


@pytest.mark.parametrize("verb", list(Verb))
@pytest.mark.parametrize("address", [None, Address("charge[2]#1")])
def test_a_control_is_read_as_it_was_sent(
    verb: Verb, address: Address | None, own: OwnRecords, payloads: PlainPayloadCodec
) -> None:
    message = ControlMessage(saga_id="s", verb=verb, actor="ann", reason="because", address=address, ticket="T-1")
    control = messages.decode_inbox(as_read(messages.encode_control(message, ENVELOPE, own, TOPICS)), own, payloads)
    assert isinstance(control, Control)
    assert (control.verb, control.address, control.payload) == (verb, address, None)
    assert (control.cause.actor, control.cause.reason, control.cause.ticket) == ("ann", "because", "T-1")


@pytest.mark.parametrize(("field", "value"), [("verb", "explode"), ("address", "Not An Address")])
def test_a_control_that_asks_for_nonsense_is_undecodable(
    field: str, value: str, own: OwnRecords, payloads: PlainPayloadCodec
) -> None:
    fields = {"verb": "skip", "address": "charge", "payload": None, "actor": "a", "reason": "r", "ticket": None}
    record = Record("inbox", 0, 1, 2, b"saga-1", own.encode("Control", fields | {field: value}), [])
    with pytest.raises(UndecodableError, match=r"sagakit\.Control"):
        messages.decode_inbox(record, own, payloads)


def test_other_records_in_the_inbox_are_undecodable(
    avro: AvroCodec, own: OwnRecords, payloads: PlainPayloadCodec
) -> None:
    result = own.encode("Result", {"saga_id": "s", "run": 1, "definition": "d", "key": "k", "end": "completed"})
    for value, reason in [
        (result, r"no start, signal or control.*sagakit\.Result"),
        (order_payload(avro).framed, "no start, signal or control"),
        (None, "no value"),
        (b"", "too few"),
        (b"\0\0\0\xff\xff1234", "no schema"),
        (b"\1\0\0\0\1", "first byte"),
    ]:
        with pytest.raises(UndecodableError, match=reason):
            messages.decode_inbox(Record("inbox", 0, 1, 2, b"saga-1", value, []), own, payloads)


@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_an_inbox_record_without_a_saga_is_undecodable(key: bytes | None) -> None:
    with pytest.raises(UndecodableError, match="key"):
        messages.saga_id_of(Record("inbox", 0, 1, 2, key, b"x", []))


@pytest.mark.parametrize(
    ("headers", "message_id", "trace"),
    [
        ([], "orders.events/3/77", None),
        ([("ce_id", b"e-1"), ("traceparent", TRACE.traceparent.encode())], "e-1", TRACE.traceparent),
        ([("ce_id", b"e-1"), ("ce_id", b"e-2")], "e-2", None),
        ([("traceparent", b"00-nonsense")], "orders.events/3/77", None),
        ([("traceparent", b"\xff\xfe"), ("anything", b"\xff")], "orders.events/3/77", None),
    ],
)
def test_an_event_of_others_needs_no_headers(
    headers: Headers, message_id: str, trace: str | None, avro: AvroCodec, payloads: PlainPayloadCodec
) -> None:
    record = Record("orders.events", 3, 77, 5, None, order_payload(avro).framed, headers)
    event = messages.decode_event(record, payloads)
    assert event.cause.message_id == message_id
    assert event.cause.type == event.opened.type == "shop.payments.RefundCard"
    assert (event.trace.traceparent if event.trace else None) == trace


def test_an_event_of_a_saga_is_read_as_it_was_sent(avro: AvroCodec, payloads: PlainPayloadCodec) -> None:
    action = PublishEvent(
        saga_id="saga-1",
        event_id="event-1",
        type="shop.orders.OrderRejected",
        topic="orders.events",
        key="o-1",
        data={"order_id": "o-1", "reason": "rejected", "code": None},
        causation_id="cause-1",
        trace=TRACE,
    )
    schema = avro.compile_schema(schemas.load_folder(SHOP)[action.type])
    outgoing = messages.encode_event(action, schema, avro, TOPICS, 5)
    assert (outgoing.topic, outgoing.partition, outgoing.key) == ("p.orders.events", None, b"o-1")
    event = messages.decode_event(as_read(outgoing), payloads)
    assert (event.cause.message_id, event.correlation_id, event.trace) == ("event-1", "saga-1", TRACE)
    assert event.opened.data == action.data


def test_a_result_goes_where_the_start_asked_for_it(own: OwnRecords) -> None:
    action = SendResult(
        saga_id="saga-1",
        run=4,
        event_id="event-1",
        definition="place-order",
        key="o-1",
        end="completed",
        reply_to=ReplyTo(topic="results", partition=2),
        causation_id="cause-1",
        trace=None,
    )
    outgoing = messages.encode_result(action, own, TOPICS, 5)
    assert (outgoing.topic, outgoing.partition, outgoing.key) == ("results", 2, b"saga-1")
    assert outgoing.value is not None
    assert own.decode(outgoing.value).fields == {
        "saga_id": "saga-1",
        "run": 4,
        "definition": "place-order",
        "key": "o-1",
        "end": "completed",
    }


def test_a_dead_letter_holds_the_raw_record() -> None:
    record = Record("inbox", 3, 77, 5, b"\xffkey", b"\xffvalue", [("ce_id", b"\xff"), ("ce_id", b"2")])
    letter = messages.encode_dead_letter(record, "dlq", "no schema 9: \ud800")
    assert (letter.topic, letter.key, letter.value) == ("dlq", b"\xffkey", b"\xffvalue")
    assert list(letter.headers) == [
        ("ce_id", b"\xff"),
        ("ce_id", b"2"),
        ("sagakit_reason", b"no schema 9: ?"),
        ("sagakit_source_topic", b"inbox"),
        ("sagakit_source_partition", b"3"),
        ("sagakit_source_offset", b"77"),
        ("sagakit_source_timestamp", b"5"),
    ]
