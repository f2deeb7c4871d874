"""Spans for plain producers and consumers, where the application has set up OpenTelemetry (extra `otel`).

Only for clients that sagakit's `Client` and the demo use. Never for the orchestrator's, a participant's or a relay's:
the instrumented proxies lack the calls of transactions and of manual assignment. Those pass `traceparent` on as text.
"""

import sys
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

from confluent_kafka import Consumer, Producer

Headers: TypeAlias = list[tuple[str, str | bytes | None]]
"""Headers as the client takes them."""

_TRACE_HEADERS: Final = frozenset({"traceparent", "tracestate"})


class PlainProducer(Protocol):
    """The part of a producer that sends without transactions; confluent-kafka's `Producer` has it."""

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = -1,
        *,
        headers: Headers,
        on_delivery: Callable[..., None] | None = None,
    ) -> None:
        """Send without waiting."""
        ...

    def poll(self, timeout: float = -1) -> int:
        """Serve delivery reports."""
        ...

    def flush(self, timeout: float = -1) -> int:
        """Wait for delivery; gives how many records are still on their way."""
        ...


def is_set_up() -> bool:
    """Whether this process has a tracer provider of its own, so that spans go anywhere."""
    trace = _loaded_trace()
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def current_trace_id() -> str | None:
    """The id (32 hex digits) of the trace that the running code belongs to; None outside any span."""
    trace = _loaded_trace()
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    return str(trace.format_trace_id(span.trace_id)) if span.is_valid else None


def _loaded_trace() -> Any:
    """OpenTelemetry's API, if the application has loaded it; whoever sets up tracing has. Loading it takes its time."""
    return sys.modules.get("opentelemetry.trace")


def _instrumentor() -> Any:
    # Only here: it is an extra, and processes without tracing should not wait for it.
    from opentelemetry.instrumentation.confluent_kafka import ConfluentKafkaInstrumentor  # noqa: PLC0415

    return ConfluentKafkaInstrumentor


def instrument_producer(producer: Producer, tracer_provider: Any = None) -> PlainProducer:
    """The producer with a span per record sent, if OpenTelemetry is set up (or a provider given); else as it is.

    A record that carries a `traceparent` already gets its span as a child of it, and exactly one header afterwards.
    """
    if tracer_provider is None and not is_set_up():
        return producer
    return _TracedProducer(producer, tracer_provider)


def instrument_consumer(consumer: Consumer, tracer_provider: Any = None) -> Consumer:
    """The consumer with a span per record polled, if OpenTelemetry is set up (or a provider given); else as it is.

    What comes back can `subscribe`, `poll`, `consume`, `commit` and `close`, and nothing else.
    """
    if tracer_provider is None and not is_set_up():
        return consumer
    instrumented: Consumer = _instrumentor().instrument_consumer(consumer, tracer_provider)
    return instrumented


class _TracedProducer:
    """Around the instrumented proxy, which appends its headers to the caller's list and reads headers by name only."""

    def __init__(self, producer: Producer, tracer_provider: Any) -> None:
        self._producer: PlainProducer = _instrumentor().instrument_producer(producer, tracer_provider)

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = -1,
        *,
        headers: Headers,
        on_delivery: Callable[..., None] | None = None,
    ) -> None:
        from opentelemetry import context, propagate  # noqa: PLC0415

        carrier = {name: _text(value) for name, value in headers if name in _TRACE_HEADERS}
        own = [header for header in headers if header[0] not in _TRACE_HEADERS]
        token = context.attach(propagate.extract(carrier)) if carrier else None
        try:
            self._producer.produce(topic, value, key=key, partition=partition, headers=own, on_delivery=on_delivery)
        finally:
            if token is not None:
                context.detach(token)

    def poll(self, timeout: float = -1) -> int:
        return self._producer.poll(timeout)

    def flush(self, timeout: float = -1) -> int:
        return self._producer.flush(timeout)


def _text(value: str | bytes | None) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value or ""
