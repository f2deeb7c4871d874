"""A running service whose event handlers fail: tried again in place, then dead-lettered, and never in the way."""

import threading
from collections.abc import Callable

import pytest

from sagakit.participants import (
    EventContext,
    Formats,
    Rejected,
    RuntimeSettings,
    Service,
)
from sagakit.ports.log import Record
from services.shop_models import OrderConfirmed
from tests.unit.participants import support
from tests.unit.participants.memory_messages import MemoryMessages
from tests.unit.participants.support import P0, running
from tests.unit.participants.test_exchange import CONFIRMED
from tests.unit.participants.test_runtime import outcomes

WAIT_S = 20
EVENTS = P0._replace(topic="orders.events")


def reacting(handle: Callable[[EventContext], None], *, is_async: bool = False) -> Service:
    service = Service("notifications")
    if is_async:

        @service.event("orders.events")
        async def tell_async(event: OrderConfirmed, ctx: EventContext) -> None:
            handle(ctx)

    else:

        @service.event("orders.events")
        def tell(event: OrderConfirmed, ctx: EventContext) -> None:
            handle(ctx)

    return service


def event(offset: int, with_: Formats) -> Record:
    return support.received(support.event("shop.orders.OrderConfirmed", CONFIRMED, with_=with_), offset)


QUICK = RuntimeSettings(event_retry_delays_s=(0.01, 0.01))


@pytest.mark.parametrize("is_async", [False, True])
def test_a_failing_event_handler_is_tried_again_in_place(
    messages: MemoryMessages, with_: Formats, is_async: bool
) -> None:
    attempts: list[int] = []

    def handle(ctx: EventContext) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise TimeoutError("the mail server is away")

    with running(reacting(handle, is_async=is_async), messages, with_, QUICK):
        messages.assign(EVENTS)
        messages.arrive(event(0, with_))
        messages.until(lambda: messages.committed == {EVENTS: 1})
    assert (attempts, messages.sent) == ([1, 2, 3], [])


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("error", "tries"), [(TimeoutError("away"), 3), (Rejected("NO_ADDRESS"), 1)])
def test_an_event_that_cannot_be_handled_is_dead_lettered(
    messages: MemoryMessages, with_: Formats, error: Exception, tries: int, is_async: bool
) -> None:
    attempts: list[int] = []

    def handle(ctx: EventContext) -> None:
        attempts.append(ctx.attempt)
        raise error

    with running(reacting(handle, is_async=is_async), messages, with_, QUICK):
        messages.assign(EVENTS)
        messages.arrive(event(0, with_))
        messages.until(lambda: messages.committed == {EVENTS: 1})
    assert len(attempts) == tries
    assert outcomes(messages) == ["orders.events.notifications.dlq"]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_event_that_waits_for_its_next_try_does_not_hold_up_a_handover(
    messages: MemoryMessages, with_: Formats, is_async: bool
) -> None:
    tried = threading.Event()

    def handle(ctx: EventContext) -> None:
        tried.set()
        raise TimeoutError("away")

    settings = RuntimeSettings(event_retry_delays_s=(3_600.0,), handover_s=3_600.0)
    with running(reacting(handle, is_async=is_async), messages, with_, settings) as started:
        messages.assign(EVENTS)
        messages.arrive(event(0, with_))
        assert tried.wait(WAIT_S)
        messages.until(lambda: EVENTS in started.runtime.assigned)
        messages.revoke(EVENTS)
        messages.until(lambda: not started.runtime.assigned)
    assert (messages.sent, messages.committed) == ([], {EVENTS: 0})


# The registry, and what ends the process
