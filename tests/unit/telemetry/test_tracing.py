"""Plain producers and consumers leave spans, and exactly one trace context on each record."""

from collections.abc import Iterator
from typing import cast

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sagakit.telemetry import tracing
from sagakit.telemetry.tracing import Headers
from sagakit.testing.embedded import EmbeddedKafka

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield provider
    provider.shutdown()


def sent(kafka: EmbeddedKafka, topic: str, headers: Headers, provider: TracerProvider) -> dict[str, list[str]]:
    """The headers of a record as it arrives, each name with all its values."""
    producer = Producer(kafka.client_properties())
    traced = tracing.instrument_producer(producer, provider)
    traced.produce(topic, b"value", b"key", 0, headers=headers)
    assert traced.flush(30) == 0
    consumer = Consumer({**kafka.client_properties(), "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.assign([KafkaPartition(topic, 0, 0)])
    message = consumer.poll(30)
    assert message is not None
    assert message.error() is None
    consumer.close()
    producer.close()
    arrived: dict[str, list[str]] = {}
    for name, value in cast(list[tuple[str, bytes]], message.headers() or []):
        arrived.setdefault(name, []).append(value.decode())
    return arrived


def test_a_record_gets_the_context_of_its_own_span(
    embedded_kafka: EmbeddedKafka, topic_prefix: str, spans: InMemorySpanExporter, provider: TracerProvider
) -> None:
    headers: Headers = [("ce_id", b"1")]
    arrived = sent(embedded_kafka, f"{topic_prefix}events", headers, provider)
    (span,) = spans.get_finished_spans()
    context = span.get_span_context()
    assert context is not None
    assert arrived["ce_id"] == ["1"]
    (traceparent,) = arrived["traceparent"]
    assert traceparent.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    assert headers == [("ce_id", b"1")], "the caller's headers are not touched"


def test_a_context_that_the_caller_gave_is_the_parent_and_is_replaced(
    embedded_kafka: EmbeddedKafka, topic_prefix: str, spans: InMemorySpanExporter, provider: TracerProvider
) -> None:
    arrived = sent(embedded_kafka, f"{topic_prefix}events", [("traceparent", CALLER.encode())], provider)
    (span,) = spans.get_finished_spans()
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" in CALLER
    (traceparent,) = arrived["traceparent"]
    assert traceparent.split("-")[1] == CALLER.split("-")[1]
    assert traceparent != CALLER


def test_a_polled_record_leaves_a_span(
    embedded_kafka: EmbeddedKafka, topic_prefix: str, spans: InMemorySpanExporter, provider: TracerProvider
) -> None:
    topic = f"{topic_prefix}events"
    sent(embedded_kafka, topic, [], provider)
    spans.clear()
    properties = {**embedded_kafka.client_properties(), "group.id": topic, "auto.offset.reset": "earliest"}
    plain = Consumer(properties)
    plain.assign([KafkaPartition(topic, 0, 0)])
    consumer = tracing.instrument_consumer(plain, provider)
    assert consumer.poll(30) is not None
    consumer.close()
    assert [span.name for span in spans.get_finished_spans()] == ["recv", f"{topic} process"]


def test_without_a_tracer_provider_clients_are_left_as_they_are(embedded_kafka: EmbeddedKafka) -> None:
    assert not tracing.is_set_up()
    producer = Producer(embedded_kafka.client_properties())
    assert tracing.instrument_producer(producer) is producer
    assert tracing.current_trace_id() is None
    producer.close()


def test_within_a_span_its_trace_is_known(provider: TracerProvider) -> None:
    with provider.get_tracer("test").start_as_current_span("work") as span:
        assert tracing.current_trace_id() == f"{span.get_span_context().trace_id:032x}"
