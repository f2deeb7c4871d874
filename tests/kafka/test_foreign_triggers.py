"""A saga starts from events of a program that knows nothing of sagakit: a plain producer with the client's serializer.

That serializer registers the schema under the topic's name, and writes no headers.
"""

import json
import time
from contextlib import closing
from typing import Any, Protocol

import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from sagakit.adapters.kafka_reader import KafkaReader
from sagakit.app import provisioning
from sagakit.app.connect import client_properties, connect_registry
from sagakit.app.published import PublishedDefinitions, PublishingRefusedError
from sagakit.app.settings import Settings
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.messages import decode_event
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.language.canonical import Bundle, bundle
from sagakit.language.lint import lint_text
from sagakit.language.publishing import Publish
from sagakit.ports.log import TopicPartition
from sagakit.testing.kafka import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.registry]

DEFINITION = """\
saga: take-order
version: 1
owner: team
start: NAMESPACE.Order
on: orders.events
key: start.id
steps:
  ship:
    kind: pivot
    service: shipping
    command: NAMESPACE.COMMAND
    with: {id: start.id}
    timeout: 5s
"""


class Served(Protocol):
    url: str


@pytest.fixture
def settings(kafka: KafkaServer, registry: Served, topic_prefix: str) -> Settings:
    """A namespace of this test's own, set up."""
    settings = Settings(
        bootstrap=kafka.bootstrap,
        registry_url=registry.url,
        topic_prefix=topic_prefix,
        partitions=1,
        replication_factor=1,
    )
    services = [provisioning.ServiceTopics(name="shipping")]
    wanted = provisioning.wanted_topics(settings, services, ["orders.events"])
    provisioning.apply(settings, wanted, at_ms=now_ms())
    return settings


@pytest.fixture
def namespace(topic_prefix: str) -> str:
    """An Avro namespace of this test's own."""
    return "foreign_" + topic_prefix.rstrip(".").rsplit("-", 1)[1]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def record(namespace: str, name: str) -> str:
    fields = [{"name": "id", "type": "string"}]
    return json.dumps({"type": "record", "name": name, "namespace": namespace, "fields": fields})


def definition(namespace: str, command: str = "Ship") -> Bundle:
    text = DEFINITION.replace("NAMESPACE", namespace).replace("COMMAND", command)
    schemas = {f"{namespace}.{name}": record(namespace, name) for name in ("Order", "Ship")}
    linted = lint_text(text, schemas)
    assert linted.document is not None, linted.findings
    return bundle(linted.document, text, schemas)


def produce(settings: Settings, namespace: str, order: dict[str, Any]) -> None:
    """What a shop front does that was there before."""
    topic = settings.topics.service_topic("orders.events")
    with closing(SchemaRegistryClient({"url": settings.registry_url})) as client:
        serializer = AvroSerializer(client, record(namespace, "Order"))
        value = serializer(order, SerializationContext(topic, MessageField.VALUE))
    producer = Producer({"bootstrap.servers": settings.bootstrap})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def test_a_record_registered_under_its_topic_starts_sagas(settings: Settings, namespace: str) -> None:
    """The event was there first: it is published for, and what it holds is read."""
    with connect_registry(settings) as registry:
        registry.register(f"{namespace}.Ship", record(namespace, "Ship"))
        definitions = PublishedDefinitions(settings, now_ms)
        with pytest.raises(PublishingRefusedError, match=rf"the schema of {namespace}\.Order is not registered"):
            definitions.publish([definition(namespace)], "test")
        produce(settings, namespace, {"id": "o-1"})
        assert registry.versions(f"{namespace}.Order") == (), "registered under the topic's name only"

        (ruling,) = definitions.publish([definition(namespace)], "test")
        assert isinstance(ruling, Publish)
        assert [(known.name, known.version) for known in definitions.published()] == [("take-order", 1)]

        topic = settings.topics.service_topic("orders.events")
        with closing(KafkaReader(client_properties(settings))) as reader:
            (event,) = [one for records in reader.read(TopicPartition(topic, 0)) for one in records]
        opened = decode_event(event, PlainPayloadCodec(AvroCodec(registry))).opened
        assert (opened.type, dict(opened.data)) == (f"{namespace}.Order", {"id": "o-1"})


def test_a_record_that_sagakit_writes_too_is_looked_for_under_its_name(settings: Settings, namespace: str) -> None:
    produce(settings, namespace, {"id": "o-1"})
    with pytest.raises(PublishingRefusedError, match=rf"the schema of {namespace}\.Order is not registered"):
        PublishedDefinitions(settings, now_ms).publish([definition(namespace, command="Order")], "test")
