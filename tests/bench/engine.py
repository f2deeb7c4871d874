"""The engine under the floor's load: a real orchestrator process, a bare participant, the same order saga.

The registry is in memory, filled alike in each process: it is asked once a schema and process, never on the way.
"""

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import Message, Producer

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_definitions import KafkaDefinitionLog
from sagakit.adapters.kafka_log import KafkaLog
from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.app.orchestrator import assemble, calm_garbage_collector
from sagakit.app.settings import Settings
from sagakit.contracts import envelope, messages
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.own import OwnRecords, own_schemas
from sagakit.contracts.schemas import load_folder
from sagakit.core import ids
from sagakit.core.placement import partition_of
from sagakit.core.values import CONFLUENT, Data, Payload
from sagakit.language.canonical import bundle
from sagakit.language.parse import parse
from tests.bench import clients, floor
from tests.bench.roles import Bell, once, running

HERE: Final = Path(__file__).parent
SHOP: Final = HERE.parent.parent / "schemas" / "shop"
DEFINITION: Final = HERE / "three_steps.yaml"
SERVICES: Final = ("inventory", "payments", "shipping")

ORDER: Final[Data] = {
    "order_id": "",
    "customer_id": "customer-00000001",
    "customer_email": "ada@example.org",
    "amount_cents": 4200,
    "currency": "EUR",
    "items": [
        {"sku": "sku-000001", "quantity": 2, "unit_price_cents": 1000},
        {"sku": "sku-000002", "quantity": 1, "unit_price_cents": 2200},
    ],
    "address": {"street": "Main Street 1", "city": "Delft", "postal_code": "2611", "country": "NL"},
    "card_token": "tok-0001",
    "placed_at": "2026-11-23T14:05:09.123Z",
}
REPLIES: Final[Mapping[str, tuple[str, Data]]] = {
    "shop.inventory.ReserveStock": ("shop.inventory.StockReserved", {"reservation_id": "reservation-1"}),
    "shop.inventory.ReleaseStock": ("shop.inventory.StockReleased", {"order_id": "order-1", "released": 3}),
    "shop.payments.ChargeCard": ("shop.payments.CardCharged", {"payment_id": "payment-1", "charged_cents": 4200}),
    "shop.payments.RefundCard": ("shop.payments.CardRefunded", {"order_id": "order-1", "refunded_cents": 4200}),
    "shop.shipping.BookParcel": (
        "shop.shipping.ParcelBooked",
        {"parcel_id": "parcel-1", "carrier": "carrier-1", "tracking": None},
    ),
}


class World:
    """What each process of a run knows: the topics, the registry, and how to write."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.bootstrap = bootstrap
        self.settings = Settings(bootstrap=bootstrap, topic_prefix=prefix, partitions=clients.PARTITIONS)
        self.topics = self.settings.topics
        self.registry = MemoryRegistry()
        self.schemas = load_folder(SHOP)
        for name, text in [*own_schemas().items(), *self.schemas.items()]:
            self.registry.register(name, text)
        self.own = OwnRecords(self.registry)
        self.avro = AvroCodec(self.registry)

    @cache  # noqa: B019 - a world lives as long as its process
    def encoded(self, type_: str, order_id: str | None = None) -> bytes:
        """The framed record of a constant reply, or of an order."""
        data = {**ORDER, "order_id": order_id} if order_id is not None else dict(_reply_data(type_))
        return self.avro.encode(self.avro.compile_schema(self.schemas[type_]), data)


def _reply_data(type_: str) -> Data:
    return next(data for name, data in REPLIES.values() if name == type_)


def set_up(bootstrap: str, prefix: str) -> None:
    """Create the topics and publish the definition."""
    world = World(bootstrap, prefix)
    topics = world.topics
    compact = {"cleanup.policy": "compact"}
    wanted = {
        topics.inbox: {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"},
        topics.backlog: compact,
        topics.state: compact,
        topics.definitions: compact,
        topics.dead_letters: {},
        topics.service_topic("orders.events"): {},
        topics.service_topic("ended.events"): {},
        **{topics.commands(service): {} for service in SERVICES},
    }
    clients.create_topics(bootstrap, wanted, {topics.definitions: 1})
    writer = clients.producer(bootstrap, linger_ms=0)
    writer.produce(topics.definitions, published_definition(world), b"three-steps/1")
    writer.flush()


def published_definition(world: World) -> bytes:
    """The record of the definition as `publish` writes it."""
    parsed = parse(DEFINITION.read_text(), DEFINITION.name)
    assert not isinstance(parsed, list), parsed
    published = bundle(parsed.document, DEFINITION.read_text(), world.schemas)
    fields = {
        "name": published.name,
        "version": published.version,
        "canonical": published.canonical,
        "hash": published.hash,
        "source": published.source,
        "schemas": dict(published.schemas),
        "first_offsets": [],
        "command_partitions": dict.fromkeys(SERVICES, clients.PARTITIONS),
        "published_at_ms": 0,
        "published_by": "bench",
    }
    return world.own.encode("PublishedDefinition", fields)


def orchestrator(bell: Bell, bootstrap: str, prefix: str, instance: int, partitions: int) -> None:
    """One instance; ready when it has restored so many partitions, those of the trigger topic included."""
    world = World(bootstrap, prefix)
    topics = world.topics
    properties = ClientProperties({"bootstrap.servers": bootstrap})
    log = KafkaLog(
        properties,
        group=topics.orchestrator_group,
        transactional_id=f"{topics.orchestrator_group}.{instance}",
        state_topics={topics.inbox: topics.state},
    )
    definitions = KafkaDefinitionLog(properties, topics.definitions)
    engine = assemble(world.settings, log, definitions, world.registry)

    def stopping() -> bool:
        health = engine.health()
        if health.owned >= partitions and health.ready:
            bell.ready()
        return bell.stopped

    calm_garbage_collector()
    engine.run(stopping)
    log.close(5)


def headers_of(message: Message) -> list[tuple[str, bytes]]:
    """A message's headers; ours all have byte values and come as a list."""
    headers = message.headers() or []
    assert isinstance(headers, list)
    return [(name, value) for name, value in headers if isinstance(value, bytes)]


def participants(bell: Bell, bootstrap: str, prefix: str, linger_ms: int, failing: bool) -> None:
    """Answer each command at once; with `failing`, the third step is always rejected."""
    world = World(bootstrap, prefix)
    answers = {type_: (reply, world.encoded(reply)) for type_, (reply, _) in REPLIES.items()}
    if failing:
        rejected = world.own.encode("Rejected", {"code": "ADDRESS_NOT_SERVED", "message": None, "details": {}})
        answers["shop.shipping.BookParcel"] = ("sagakit.Rejected", rejected)

    def reply(message: Message, writer: Producer) -> None:
        command = dict(headers_of(message))
        world.avro.decode(message.value() or b"")
        type_, value = answers[command[envelope.TYPE].decode()]
        headers: list[tuple[str, str | bytes | None]] = [
            (envelope.SPEC_VERSION, b"1.0"),
            (envelope.ID, b"reply-" + command[envelope.ID]),
            (envelope.TYPE, type_.encode()),
            (envelope.SOURCE, b"/bench"),
            (envelope.CAUSATION_ID, command[envelope.ID]),
            (envelope.OUTCOME, b"rejected" if type_ == "sagakit.Rejected" else b"succeeded"),
        ]
        topic, partition = command[envelope.REPLY_TOPIC].decode(), int(command[envelope.REPLY_PARTITION])
        writer.produce(topic, value, message.key(), partition=partition, headers=headers)

    topics = [world.topics.commands(service) for service in SERVICES]
    floor.answer(bell, bootstrap, f"{prefix}participants", topics, linger_ms, reply)


def measure(
    bootstrap: str, sagas: int, *, latency: bool, failing: bool, orchestrators: int = 1, triggered: bool = False
) -> dict[str, float]:
    """Run the engine once: sagas per second, or end-to-end percentiles in milliseconds.

    `triggered` starts the sagas by domain events instead of through the inbox.
    """
    prefix = f"engine-{uuid4().hex[:8]}-"
    once(set_up, bootstrap, prefix)
    owned = 2 * clients.PARTITIONS // orchestrators
    roles: list[tuple[Any, tuple[Any, ...]]] = [
        (orchestrator, (bootstrap, prefix, instance, owned)) for instance in range(orchestrators)
    ]
    roles.append((participants, (bootstrap, prefix, 0 if latency else 2, failing)))
    with running(*roles):
        return once(drive, bootstrap, prefix, sagas, latency, triggered)  # type: ignore[no-any-return]


def start(world: World, number: int, triggered: bool) -> clients.StartRecord:
    """The record that starts a saga: of the inbox, or the domain event that does."""
    key = f"order-{number:08d}"
    value = world.encoded("shop.orders.OrderPlaced", key)
    if triggered:
        return clients.StartRecord(world.topics.service_topic("orders.events"), None, key.encode(), value, [])
    saga_id = ids.saga_id(world.settings.namespace, "three-steps", key)
    message = messages.StartMessage(
        saga_id=saga_id, definition="three-steps", key=key, payload=Payload(framed=value, encoding=CONFLUENT)
    )
    said = envelope.Envelope(message_id=f"start-{number}", source="/bench", at_ms=time.time_ns() // 1_000_000)
    partition = partition_of(saga_id.encode(), clients.PARTITIONS)
    out = messages.encode_start(message, said, world.own, world.topics, partition)
    return clients.StartRecord(out.topic, partition, out.key, out.value or b"", list(out.headers))


def drive(bootstrap: str, prefix: str, sagas: int, latency: bool, triggered: bool) -> dict[str, float]:
    """Start the sagas and wait for their ends; run in a process of its own."""
    world = World(bootstrap, prefix)
    starts = [start(world, number, triggered) for number in range(sagas + clients.warm_up(latency))]
    writer = clients.producer(bootstrap, linger_ms=0 if latency else 5)
    ends = clients.Ends(bootstrap, world.topics.service_topic("ended.events"))
    if latency:
        return clients.one_by_one(writer, starts, ends)
    return {"sagas_per_s": clients.saturated(writer, starts, ends)}
