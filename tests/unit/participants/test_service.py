"""Handlers are found by their annotations; what cannot work is refused when it is declared, with the way to mend it."""

from typing import ClassVar

import pytest
from pydantic import BaseModel

from sagakit.participants import Context, EventContext, HandlerError, Rejected, Service
from sagakit.participants.service import Kind


class Charge(BaseModel):
    __avro_record__: ClassVar[str] = "test.Charge"
    cents: int


class Charged(BaseModel):
    __avro_record__: ClassVar[str] = "test.Charged"


class Nameless(BaseModel):
    cents: int


def test_the_record_type_decides_and_the_context_is_optional() -> None:
    service = Service("payments", owner="team-payments")

    @service.command
    def charge(command: Charge) -> Charged:
        return Charged()

    handler = service.commands["test.Charge"]
    assert (handler.kind, handler.model, handler.reply, handler.is_async) == (Kind.COMMAND, Charge, Charged, False)
    assert handler.context_parameter is None
    assert charge(Charge(cents=1)) == Charged()  # the function stays what it was


def test_parameters_may_stand_in_any_order_and_have_any_name() -> None:
    service = Service("payments")

    @service.compensation()
    async def refund(about: Context, what: Charge) -> Charged:
        return Charged()

    handler = service.commands["test.Charge"]
    assert (handler.kind, handler.is_async) == (Kind.COMPENSATION, True)
    assert (handler.message_parameter, handler.context_parameter) == ("what", "about")


def test_events_are_known_by_topic_and_record() -> None:
    service = Service("notifications")

    @service.event("orders.events")
    def first(event: Charged, ctx: EventContext) -> None: ...

    @service.event("payments.events")
    def second(event: Charged) -> None: ...

    assert service.event_topics == ("orders.events", "payments.events")
    assert service.events["payments.events", "test.Charged"].function is second
    assert [handler.name.rpartition(".")[2] for handler in service.handlers] == ["first", "second"]


def test_a_rejection_tells_code_message_and_details() -> None:
    rejected = Rejected("OUT_OF_STOCK", "no cups left", {"sku": "cup"})
    assert (str(rejected), rejected.code, rejected.details) == (
        "OUT_OF_STOCK: no cups left",
        "OUT_OF_STOCK",
        {"sku": "cup"},
    )


def test_two_handlers_of_one_command_are_refused() -> None:
    service = Service("payments")

    @service.command
    def charge(command: Charge) -> Charged:
        return Charged()

    with pytest.raises(HandlerError, match=r"both handle test\.Charge"):

        @service.compensation
        def refund(command: Charge) -> Charged:
            return Charged()


def test_two_handlers_of_one_event_are_refused() -> None:
    service = Service("payments")

    @service.event("orders.events")
    def first(event: Charge) -> None: ...

    with pytest.raises(HandlerError, match=r"both handle test\.Charge of orders\.events"):

        @service.event("orders.events")
        def second(event: Charge) -> None: ...


def test_an_event_handler_needs_its_topic() -> None:
    service = Service("payments")
    with pytest.raises(HandlerError, match="needs the topic"):

        @service.event  # type: ignore[arg-type]
        def handler(event: Charge) -> None: ...


def without_annotation(command) -> Charged:  # type: ignore[no-untyped-def]
    return Charged()


def without_reply(command: Charge):  # type: ignore[no-untyped-def]
    return Charged()


def with_nameless_command(command: Nameless) -> Charged:
    return Charged()


def with_nameless_reply(command: Charge) -> Nameless:
    return Nameless(cents=1)


def with_the_wrong_context(command: Charge, ctx: EventContext) -> Charged:
    return Charged()


def with_nothing() -> Charged:
    return Charged()


def with_an_unknown_name(command: "Nowhere") -> Charged:  # type: ignore[name-defined]  # noqa: F821
    return Charged()


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (without_annotation, "parameter 'command' of type None"),
        (without_reply, "must return the model"),
        (with_nameless_command, "Nameless does not say which Avro record"),
        (with_nameless_reply, "Nameless does not say which Avro record"),
        (with_the_wrong_context, "one Context"),
        (with_nothing, "takes no record"),
        (with_an_unknown_name, "cannot be found"),
    ],
)
def test_what_cannot_work_is_refused(function: object, complaint: str) -> None:
    with pytest.raises(HandlerError, match=complaint):
        Service("payments").command(function)  # type: ignore[call-overload]
