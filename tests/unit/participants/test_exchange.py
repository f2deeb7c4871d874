"""Every record gets its answer: replies by outcome, defined failures for what cannot be handled, or a dead letter."""

from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from sagakit.contracts import framing
from sagakit.participants import Context, EventContext, Formats, Rejected, Service
from sagakit.participants.answers import Answer, AnswerKind
from sagakit.participants.exchange import ServiceExchange
from sagakit.participants.workers import Call
from sagakit.participants.worklist import Ticket
from sagakit.ports.log import Record
from sagakit.ports.messages import DeliveryFailure, Undelivered
from sagakit.ports.registry import RegistryUnavailableError, UnknownSchemaError
from services.shop_models import CardCharged, CardRefunded, ChargeCard, OrderConfirmed, RefundCard
from tests.unit.participants import support
from tests.unit.participants.support import P0

CONFIRMED: dict[str, Any] = {
    "order_id": "order-1",
    "customer_id": "customer-1",
    "amount_cents": 4_200,
    "parcel_id": "parcel-1",
    "carrier": "Swift Parcel",
    "tracking": None,
}

LATER_FIELD = '{"name":"installments","type":"int","default":0},'


class PickyCharge(BaseModel):
    __avro_record__: ClassVar[str] = "shop.payments.ChargeCard"
    order_id: str
    amount_cents: int
    card_token: int


def payments() -> Service:
    service = Service("payments")

    @service.command
    def charge(command: ChargeCard, ctx: Context) -> CardCharged:
        return CardCharged(payment_id=ctx.idempotency_key, charged_cents=command.amount_cents)

    @service.compensation
    def refund(command: RefundCard, ctx: Context) -> CardRefunded:
        return CardRefunded(order_id=command.order_id, refunded_cents=0)

    @service.event("orders.events")
    def confirmed(event: OrderConfirmed, ctx: EventContext) -> None: ...

    return service


@pytest.fixture
def with_() -> Formats:
    return support.formats(support.registered())


@pytest.fixture
def exchange(with_: Formats) -> ServiceExchange:
    return support.exchange(payments(), with_)


def call_of(prepared: object) -> Call:
    assert isinstance(prepared, Call)
    return prepared


def answer_of(prepared: object) -> Answer:
    assert isinstance(prepared, Answer)
    return prepared


def failure_of(prepared: object, with_: Formats) -> tuple[str, str]:
    answer = answer_of(prepared)
    assert support.headers(answer.record)["sagakit_outcome"] == "failed"
    fields = support.body(answer.record, with_)
    return str(fields["kind"]), str(fields["message"])


def without(record: Record, name: str) -> Record:
    return record._replace(headers=[one for one in record.headers if one[0] != name])


def test_a_command_becomes_a_call_with_its_context(exchange: ServiceExchange, with_: Formats) -> None:
    sent = support.command(with_=with_, attempt=2)
    call = call_of(exchange.prepare(support.received(sent, offset=9)))
    assert call.message == ChargeCard(**support.CHARGE)
    ctx = call.context
    assert isinstance(ctx, Context)
    said = support.headers(sent)
    assert (ctx.service, ctx.saga_id, ctx.run, ctx.address) == ("payments", said["ce_correlationid"], 7, "charge")
    assert (ctx.direction, ctx.attempt, ctx.undoes) == ("forward", 2, None)
    assert (ctx.command_id, ctx.idempotency_key) == (said["ce_id"], said["sagakit_idempotency_key"])
    assert (ctx.expires_at_ms, ctx.trace) == (int(said["sagakit_expires_at"]), support.TRACE)
    assert (ctx.source.topic, ctx.source.offset) == ("payments.commands", 9)


def test_a_compensation_is_told_what_it_undoes(exchange: ServiceExchange, with_: Formats) -> None:
    sent = support.command(
        with_=with_, type_="shop.payments.RefundCard", data={"order_id": "order-1"}, undoes="the-forward-key"
    )
    ctx = call_of(exchange.prepare(support.received(sent))).context
    assert isinstance(ctx, Context)
    assert (ctx.direction, ctx.undoes) == ("compensation", "the-forward-key")


def test_a_success_goes_where_the_command_says(exchange: ServiceExchange, with_: Formats) -> None:
    sent = support.command(with_=with_, reply_partition=5)
    record = support.received(sent)
    reply = CardCharged(payment_id="payment-1", charged_cents=4_200)
    answer = answer_of(exchange.answer(record, call_of(exchange.prepare(record)), reply))
    said, asked = support.headers(answer.record), support.headers(sent)
    assert (answer.record.topic, answer.record.partition) == ("default.saga.inbox", 5)
    assert answer.record.key == asked["ce_correlationid"].encode()
    assert (said["sagakit_outcome"], said["ce_type"]) == ("succeeded", "shop.payments.CardCharged")
    assert (said["ce_causationid"], said["ce_source"]) == (asked["ce_id"], "/services/payments")
    assert (said["traceparent"], said["ce_correlationid"]) == (asked["traceparent"], asked["ce_correlationid"])
    assert support.body(answer.record, with_) == {"payment_id": "payment-1", "charged_cents": 4_200}


@pytest.mark.parametrize(
    "outcome",
    [
        ValueError("no file \udcff"),
        Rejected("\udcff"),
        Rejected("NO", "\udcff"),
        Rejected("NO", "", {"\udcff": "\udcff"}),
    ],
)
def test_what_a_handler_says_is_answered_though_it_is_no_whole_text(
    exchange: ServiceExchange, with_: Formats, outcome: BaseException
) -> None:
    """A file's name in an error, half a surrogate pair out of JSON: it ended the process, and the next one too."""
    record = support.received(support.command(with_=with_))
    answer = answer_of(exchange.answer(record, call_of(exchange.prepare(record)), outcome))
    assert "?" in str(support.body(answer.record, with_))


def test_a_rejection_keeps_code_message_and_details(exchange: ServiceExchange, with_: Formats) -> None:
    record = support.received(support.command(with_=with_))
    outcome = Rejected("CARD_DECLINED", "no money", {"bank": "Giro"})
    answer = answer_of(exchange.answer(record, call_of(exchange.prepare(record)), outcome))
    assert support.headers(answer.record)["sagakit_outcome"] == "rejected"
    fields = {"code": "CARD_DECLINED", "message": "no money", "details": {"bank": "Giro"}}
    assert support.body(answer.record, with_) == fields


@pytest.mark.parametrize("error", [TimeoutError("the bank is away"), SystemExit("enough"), KeyError("cents")])
def test_any_other_exception_is_a_technical_failure(
    exchange: ServiceExchange, with_: Formats, error: BaseException
) -> None:
    record = support.received(support.command(with_=with_))
    answered = exchange.answer(record, call_of(exchange.prepare(record)), error)
    assert failure_of(answered, with_) == (type(error).__name__, str(error))


def test_what_has_expired_is_not_begun(exchange: ServiceExchange, with_: Formats) -> None:
    record = support.received(support.command(with_=with_, expires_at_ms=support.now_ms() - 1))
    answer = answer_of(exchange.prepare(record))
    assert support.headers(answer.record)["sagakit_outcome"] == "expired"
    assert support.headers(answer.record)["ce_type"] == "sagakit.Expired"


def test_what_has_expired_and_may_have_been_begun_before_is_not_known_to_have_had_no_effect(
    exchange: ServiceExchange, with_: Formats
) -> None:
    record = support.received(support.command(with_=with_, expires_at_ms=support.now_ms() - 1))
    kind, _ = failure_of(exchange.prepare(record, may_have_begun=True), with_)
    assert kind == "ExpiredAfterHandover"


def test_an_unknown_command_fails_and_says_what_is_known(exchange: ServiceExchange, with_: Formats) -> None:
    sent = support.command(with_=with_, type_="shop.inventory.ReleaseStock", data={"order_id": "order-1"})
    kind, message = failure_of(exchange.prepare(support.received(sent)), with_)
    assert kind == "UnknownCommand"
    assert "shop.inventory.ReleaseStock" in message
    assert "shop.payments.ChargeCard" in message


@pytest.mark.parametrize(
    "value", [b"", b"\x01\x00\x00\x00\x01abc", b"\x00\x00\x00", framing.frame(1, b"\xff"), None], ids=repr
)
def test_undecodable_bytes_fail_when_one_can_reply(
    exchange: ServiceExchange, with_: Formats, value: bytes | None
) -> None:
    record = support.received(support.command(with_=with_))._replace(value=value)
    assert failure_of(exchange.prepare(record), with_)[0] == "UndecodableCommand"


def test_a_value_of_another_type_than_the_header_says_fails(exchange: ServiceExchange, with_: Formats) -> None:
    other = support.command(with_=with_, type_="shop.inventory.ReleaseStock", data={"order_id": "order-1"})
    record = support.received(support.command(with_=with_))._replace(value=other.value)
    kind, message = failure_of(exchange.prepare(record), with_)
    assert kind == "UndecodableCommand"
    assert "shop.inventory.ReleaseStock" in message


def test_an_invalid_payload_fails_without_repeating_its_values(with_: Formats) -> None:
    service = Service("payments")

    @service.command
    def charge(command: PickyCharge) -> CardCharged:
        raise AssertionError("never called")

    record = support.received(support.command(with_=with_))
    kind, message = failure_of(support.exchange(service, with_).prepare(record), with_)
    assert kind == "InvalidCommand"
    assert "card_token" in message
    assert "card-visa-1" not in message


def test_a_compensation_without_anything_to_undo_is_not_called(exchange: ServiceExchange, with_: Formats) -> None:
    sent = support.command(with_=with_, type_="shop.payments.RefundCard", data={"order_id": "order-1"})
    assert failure_of(exchange.prepare(support.received(sent)), with_)[0] == "NothingToUndo"


@pytest.mark.parametrize(
    "missing", ["sagakit_reply_topic", "sagakit_reply_partition", "ce_id", "ce_correlationid", "sagakit_expires_at"]
)
def test_a_command_that_says_not_whom_to_answer_is_dead_lettered_as_it_came(
    exchange: ServiceExchange, with_: Formats, missing: str
) -> None:
    record = without(support.received(support.command(with_=with_), offset=4), missing)
    answer = answer_of(exchange.prepare(record))
    said = support.headers(answer.record)
    assert (answer.kind, answer.record.topic) == (AnswerKind.DEAD_LETTER, "payments.commands.dlq")
    assert (answer.record.key, answer.record.value) == (record.key, record.value)
    assert list(answer.record.headers)[: len(record.headers)] == record.headers
    assert missing in said["sagakit_reason"]
    assert (said["sagakit_source_topic"], said["sagakit_source_offset"]) == ("payments.commands", "4")


@pytest.mark.parametrize("reply", [None, "charged", {"payment_id": "1"}, PickyCharge.model_construct()], ids=repr)
def test_a_reply_that_is_no_record_is_a_failure(exchange: ServiceExchange, with_: Formats, reply: Any) -> None:
    record = support.received(support.command(with_=with_))
    answered = exchange.answer(record, call_of(exchange.prepare(record)), reply)
    assert failure_of(answered, with_)[0] == "InvalidReply"


def test_a_reply_that_does_not_fit_its_schema_is_a_failure_that_names_the_field(
    exchange: ServiceExchange, with_: Formats
) -> None:
    record = support.received(support.command(with_=with_))
    reply = CardCharged(payment_id="payment-1", charged_cents=2**70)
    kind, message = failure_of(exchange.answer(record, call_of(exchange.prepare(record)), reply), with_)
    assert kind == "InvalidReply"
    assert "charged_cents" in message


# What cannot be delivered


def job(record: Record) -> Ticket[Record]:
    return Ticket(partition=P0, offset=record.offset, epoch=1, key=record.key, item=record)


TOO_LARGE = DeliveryFailure(kind=Undelivered.TOO_LARGE, reason="Broker: Message size too large")
REFUSED = DeliveryFailure(kind=Undelivered.REFUSED, reason="Local: Unknown topic")


def test_a_reply_that_is_too_large_becomes_a_small_failure(exchange: ServiceExchange, with_: Formats) -> None:
    record = support.received(support.command(with_=with_))
    reply = CardCharged(payment_id="x" * 2_000_000, charged_cents=1)
    answer = answer_of(exchange.answer(record, call_of(exchange.prepare(record)), reply))
    replaced = exchange.replacement(job(record), answer, TOO_LARGE)
    assert failure_of(replaced, with_)[0] == "ReplyTooLarge"


def test_a_reply_that_is_refused_for_ever_becomes_a_dead_letter(exchange: ServiceExchange, with_: Formats) -> None:
    record = support.received(support.command(with_=with_))
    reply = CardCharged(payment_id="payment-1", charged_cents=1)
    answer = answer_of(exchange.answer(record, call_of(exchange.prepare(record)), reply))
    replaced = answer_of(exchange.replacement(job(record), answer, REFUSED))
    assert (replaced.kind, replaced.record.topic) == (AnswerKind.DEAD_LETTER, "payments.commands.dlq")
    assert "Unknown topic" in support.headers(replaced.record)["sagakit_reason"]


def test_a_dead_letter_that_is_too_large_keeps_its_beginning_length_and_hash(exchange: ServiceExchange) -> None:
    record = Record("payments.commands", 0, 0, 0, None, b"x" * 1_000_000, [])
    answer = answer_of(exchange.prepare(record))
    replaced = answer_of(exchange.replacement(job(record), answer, TOO_LARGE))
    assert replaced.record.value == b"x" * 100_000
    assert "1000000 bytes" in support.headers(replaced.record)["sagakit_shortened"]
    assert exchange.replacement(job(record), replaced, TOO_LARGE) is None


# Events


def test_an_event_becomes_a_call_with_its_context(exchange: ServiceExchange, with_: Formats) -> None:
    sent = support.event("shop.orders.OrderConfirmed", CONFIRMED, with_=with_)
    call = call_of(exchange.prepare(support.received(sent)))
    assert call.message == OrderConfirmed(**CONFIRMED)
    ctx = call.context
    assert isinstance(ctx, EventContext)
    assert (ctx.event_id, ctx.key, ctx.correlation_id, ctx.attempt) == ("event-1", "order-1", "the-saga", 1)


def test_an_event_without_headers_has_its_place_as_its_id(exchange: ServiceExchange, with_: Formats) -> None:
    sent = support.event("shop.orders.OrderConfirmed", CONFIRMED, with_=with_)
    record = support.received(sent, offset=12, partition=2)._replace(headers=[])
    ctx = call_of(exchange.prepare(record)).context
    assert isinstance(ctx, EventContext)
    assert ctx.event_id == "orders.events/2/12"


def test_an_event_of_a_type_without_a_handler_is_passed_over(exchange: ServiceExchange, with_: Formats) -> None:
    rejected = {"order_id": "order-1", "reason": "rejected", "code": None}
    sent = support.event("shop.orders.OrderRejected", rejected, with_=with_)
    assert exchange.prepare(support.received(sent)) is None


def test_an_undecodable_event_is_dead_lettered_for_this_service(exchange: ServiceExchange, with_: Formats) -> None:
    record = support.received(support.event("shop.orders.OrderConfirmed", CONFIRMED, with_=with_))
    answer = answer_of(exchange.prepare(record._replace(value=b"junk")))
    assert (answer.record.topic, answer.record.value) == ("orders.events.payments.dlq", b"junk")


def test_an_event_whose_handler_failed_is_dead_lettered_with_the_error(
    exchange: ServiceExchange, with_: Formats
) -> None:
    record = support.received(support.event("shop.orders.OrderConfirmed", CONFIRMED, with_=with_))
    call = call_of(exchange.prepare(record))
    answer = answer_of(exchange.answer(record, call, TimeoutError("the mail server is away")))
    assert (answer.record.topic, answer.record.value) == ("orders.events.payments.dlq", record.value)
    assert "the mail server is away" in support.headers(answer.record)["sagakit_reason"]
    assert exchange.answer(record, call, None) is None


# Topics and the registry


def test_topics_and_dead_letter_topics(exchange: ServiceExchange) -> None:
    assert exchange.topics == ("payments.commands", "orders.events")
    assert exchange.dead_letter_topics == ("payments.commands.dlq", "orders.events.payments.dlq")


def test_the_handler_is_guessed_from_headers_alone(exchange: ServiceExchange, with_: Formats) -> None:
    record = support.received(support.command(with_=with_))
    guessed = exchange.likely_handler(record)
    assert guessed is not None
    assert guessed.record == "shop.payments.ChargeCard"
    assert exchange.likely_handler(record._replace(headers=[])) is None


def test_a_reply_that_is_not_registered_is_found_at_start() -> None:
    exchange = support.exchange(payments(), support.formats(support.registered(register=False)))
    with pytest.raises(UnknownSchemaError, match=r"shop\.payments\.CardCharged.*sagakit schemas register"):
        exchange.prepare_schemas()


def test_a_schema_id_that_the_registry_denies_is_asked_again_before_that_is_final(with_: Formats) -> None:
    now = 100.0
    exchange = support.exchange(payments(), with_, clock=lambda: now)
    record = support.received(support.command(with_=with_))._replace(value=framing.frame(9_999, b"\x00"))
    with pytest.raises(RegistryUnavailableError, match="9999"):
        exchange.prepare(record)
    now += 1.5
    assert failure_of(exchange.prepare(record), with_)[0] == "UndecodableCommand"


def test_a_schema_that_comes_after_its_first_record_is_found(with_: Formats) -> None:
    registry = support.registered()
    exchange = support.exchange(payments(), support.formats(registry))
    new_version = support.SCHEMAS["shop.payments.ChargeCard"].replace('"fields":[', '"fields":[' + LATER_FIELD, 1)
    schema_id = support.registered().register("shop.payments.ChargeCard", new_version)
    sent = support.command(with_=with_)
    assert sent.value is not None
    record = support.received(sent)._replace(value=framing.frame(schema_id, b"\x00" + sent.value[5:]))
    with pytest.raises(RegistryUnavailableError):
        exchange.prepare(record)
    assert registry.register("shop.payments.ChargeCard", new_version) == schema_id
    assert isinstance(exchange.prepare(record), Call)


def test_the_logger_says_what_it_is_about(exchange: ServiceExchange, with_: Formats) -> None:
    ctx = call_of(exchange.prepare(support.received(support.command(with_=with_)))).context
    bound = ctx.logger._context
    assert isinstance(ctx, Context)
    assert (bound["saga_id"], bound["step"], bound["attempt"]) == (ctx.saga_id, "charge", 1)
    assert bound["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert bound["business_key"] == "order-1"


def test_a_command_that_does_not_tell_its_business_key_is_handled(exchange: ServiceExchange, with_: Formats) -> None:
    sent = support.received(support.command(with_=with_))
    untold = sent._replace(headers=[one for one in sent.headers if one[0] != "sagakit_key"])
    ctx = call_of(exchange.prepare(untold)).context
    assert ctx.key is None
