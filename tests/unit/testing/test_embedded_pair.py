"""The embedded pair, as users of `sagakit.testing` have it: a block, or fixtures."""

import json

import pytest
from confluent_kafka import Consumer, Producer

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts.codec import AvroCodec
from sagakit.ports.registry import IncompatibleSchemaError
from sagakit.testing import EmbeddedKafka, EmbeddedPair
from sagakit.testing.errors import ServerError


def order(name: str, *fields: str) -> str:
    kinds = [{"name": field, "type": "string"} for field in fields]
    return json.dumps({"type": "record", "name": name, "namespace": "embedded", "fields": kinds})


def test_a_record_goes_through_both() -> None:
    with EmbeddedPair() as pair:
        pair.registry.register("embedded.Order", order("Order", "id"))
        avro = AvroCodec(pair.registry)
        value = avro.encode(avro.compile_schema(order("Order", "id")), {"id": "o-1"})
        producer = Producer(pair.kafka.client_properties())
        producer.produce("orders.events", value, partition=0)
        assert producer.flush(30) == 0
        consumer = Consumer({**pair.kafka.client_properties(), "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.subscribe(["orders.events"])
        message = consumer.poll(30)
        consumer.close()
        assert message is not None
        assert message.error() is None
        read = message.value()
        assert read is not None
        decoded = AvroCodec(pair.registry).decode(read)
        assert (decoded.type, dict(decoded.data)) == ("embedded.Order", {"id": "o-1"})


def test_nothing_survives_the_block() -> None:
    pair = EmbeddedPair()
    with pytest.raises(ServerError, match=r"call start\(\) first"):
        _ = pair.registry
    with pair:
        pair.registry.register("embedded.Order", order("Order", "id"))
    with pytest.raises(ServerError, match=r"call start\(\) first"):
        _ = pair.registry
    with pytest.raises(ServerError, match=r"call start\(\) first"):
        _ = pair.kafka.bootstrap
    with pair:
        assert pair.registry.versions("embedded.Order") == ()


def test_the_registry_has_the_compatibility_that_was_asked_for() -> None:
    changed = order("Order", "other")
    with EmbeddedPair(default_compatibility="NONE") as free, EmbeddedPair() as strict:
        for pair in (free, strict):
            pair.registry.register("embedded.Order", order("Order", "id"))
        free.registry.register("embedded.Order", changed)
        with pytest.raises(IncompatibleSchemaError):
            strict.registry.register("embedded.Order", changed)


def test_the_fixtures_are_one_pair(
    embedded_pair: EmbeddedPair, embedded_kafka: EmbeddedKafka, embedded_registry: MemoryRegistry
) -> None:
    assert embedded_kafka is embedded_pair.kafka
    assert embedded_registry is embedded_pair.registry
    assert embedded_kafka.bootstrap
