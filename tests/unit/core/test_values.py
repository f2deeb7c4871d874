"""The core's values: equal by their fields, and not to be changed, in the plain and in the compiled build."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from sagakit.core.events import Cause, Outcome, Reply, Source, TraceContext
from sagakit.core.values import CONFLUENT, VALUES, Payload


def test_a_value_cannot_be_changed() -> None:
    payload = Payload(framed=b"x", encoding=CONFLUENT)
    with pytest.raises(FrozenInstanceError):
        setattr(payload, "encoding", VALUES)  # noqa: B010 - written plainly, the type checker would forbid it
    assert payload.encoding == CONFLUENT


def test_equal_values_are_equal_and_hash_alike() -> None:
    one, other = (Cause(message_id="m", type="t", source=Source(topic="x", partition=1, offset=2)) for _ in range(2))
    assert one is not other
    assert one == other
    assert hash(one) == hash(other)
    assert one != Cause(message_id="m", type="t")


def test_a_value_has_slots_and_its_fields_can_be_asked_for() -> None:
    payload = Payload(framed=b"x", encoding=CONFLUENT)
    assert not hasattr(payload, "__dict__")
    assert [field.name for field in fields(payload)] == ["framed", "encoding", "key_id"]


def test_the_types_of_fields_can_be_asked_for() -> None:
    types = {field.name: field.type for field in fields(Cause)}
    assert types["source"] == Source | None
    assert types["message_id"] is str


def test_what_is_not_said_is_none() -> None:
    cause = Cause(message_id="m", type="t")
    assert cause == Cause(message_id="m", type="t", source=None, seq=None, actor=None, reason=None, ticket=None)
    reply = Reply(cause=cause, command_id="c", outcome=Outcome.EXPIRED, payload=None)
    assert (reply.code, reply.message, reply.trace, reply.refusals) == (None, None, None, ())
    assert Payload(framed=b"x", encoding=CONFLUENT).key_id is None


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c"),
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later", "0af7651916cd43dd8448eb211c80319c"),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", None),
        ("", None),
    ],
)
def test_the_trace_id_of_a_traceparent(traceparent: str, trace_id: str | None) -> None:
    context = TraceContext(traceparent=traceparent)
    assert (context.trace_id, context.tracestate) == (trace_id, None)
