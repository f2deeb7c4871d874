"""What is left of an event that is too large: enough to say what it was, and always small."""

import pytest

from sagakit.core.address import Address
from sagakit.core.events import (
    Cause,
    Control,
    Event,
    Outcome,
    Refusal,
    Refused,
    Reply,
    ReplyTo,
    Source,
    Start,
    TraceContext,
    Verb,
)
from sagakit.core.light import lightened, short
from tests.unit.core.story import opened

LONG = "x" * 1_000
CUT = "x" * 300 + "… (1000 characters)"
SOURCE = Source(topic="saga.inbox", partition=1, offset=7)
CAUSE = Cause(message_id=LONG, type="t", source=SOURCE, seq=4, actor="kim", reason=LONG, ticket=None)
LEFT = Cause(message_id=CUT, type="t", source=SOURCE, seq=4, actor="kim", reason=CUT, ticket=None)
REFUSALS = (Refusal(target=Refused.INPUT, address=None, reason="too large"),)
TRACE = TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate=LONG)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("x" * 299, "x" * 299),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 300 + "… (301 characters)"),
        (LONG, CUT),
    ],
)
def test_a_text_is_cut_with_a_mark(text: str, wanted: str) -> None:
    assert short(text) == wanted


@pytest.mark.parametrize(
    ("event", "left"),
    [
        (
            Start(
                cause=CAUSE,
                trace=TRACE,
                refusals=REFUSALS,
                definition="place-order",
                key=LONG,
                run=5,
                payload=opened("shop.OrderPlaced"),
                reply_to=ReplyTo(topic=LONG, partition=2),
                deadline_ms=9,
            ),
            Start(
                cause=LEFT,
                refusals=REFUSALS,
                definition="place-order",
                key=CUT,
                run=5,
                payload=None,
                deadline_ms=9,
            ),
        ),
        (
            Reply(
                cause=CAUSE, command_id="c", outcome=Outcome.FAILED, payload=opened("shop.Done"), code="E", message=LONG
            ),
            Reply(cause=LEFT, command_id="c", outcome=Outcome.FAILED, payload=None, code="E", message=CUT),
        ),
        (
            Control(cause=CAUSE, verb=Verb.SKIP, address=Address("a" * 300)),
            Control(cause=LEFT, verb=Verb.SKIP, address=Address("a" * 300)),
        ),
        (
            Control(cause=CAUSE, verb=Verb.SKIP, address=Address("a" * 301)),
            Control(cause=LEFT, verb=Verb.SKIP, address=None),
        ),
    ],
)
def test_what_is_left_of_an_event(event: Event, left: Event) -> None:
    assert lightened(event) == left


def test_an_address_stays_an_address() -> None:
    left = lightened(Control(cause=CAUSE, verb=Verb.RETRY, address=Address("reserve")))
    assert isinstance(left, Control)
    assert isinstance(left.address, Address)
