"""The engine under the floor's load: a real orchestrator process, a bare participant, the same order saga.

The registry is in memory, filled alike in each process: it is asked once a schema and process, never on the way.
"""

import time
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import Message, Producer

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_definitions import KafkaDefinitionLog
from sagakit.adapters.kafka_log import KafkaLog
from sagakit.app.orchestrator import assemble, calm_garbage_collector
from sagakit.contracts import envelope, messages
from sagakit.core import ids
from sagakit.core.placement import partition_of
from sagakit.core.values import CONFLUENT, Payload
from sagakit.language.canonical import bundle
from sagakit.language.parse import parse
from tests.bench import clients, floor
from tests.bench.loads import ORDERS, Load
from tests.bench.roles import Bell, Pids, Site, once, running
from tests.bench.waiting import write_states
from tests.bench.world import REPLIES, World

SERVICES: Final = ("inventory", "payments", "shipping")


def set_up(bootstrap: str, prefix: str, load: Load) -> None:
    """Create the topics and publish the definition."""
    world = World(bootstrap, prefix, load)
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
    clients.create_topics(bootstrap, wanted, {topics.definitions: 1}, load.partitions)
    writer = clients.producer(bootstrap, linger_ms=0)
    writer.produce(topics.definitions, published_definition(world), f"{load.saga}/1".encode())
    writer.flush()


def published_definition(world: World) -> bytes:
    """The record of the definition as `publish` writes it."""
    text = world.load.definition
    parsed = parse(text, f"{world.load.saga}.yaml")
    assert not isinstance(parsed, list), parsed
    published = bundle(parsed.document, text, world.schemas)
    fields = {
        "name": published.name,
        "version": published.version,
        "canonical": published.canonical,
        "hash": published.hash,
        "source": published.source,
        "schemas": dict(published.schemas),
        "first_offsets": [],
        "command_partitions": dict.fromkeys(SERVICES, world.load.partitions),
        "published_at_ms": 0,
        "published_by": "bench",
    }
    return world.own.encode("PublishedDefinition", fields)


def orchestrator(
    bell: Bell, bootstrap: str, prefix: str, load: Load, instance: int, log_type: type[KafkaLog] = KafkaLog
) -> None:
    """One instance; ready when it has restored its share of the partitions, those of the trigger topic included."""
    world = World(bootstrap, prefix, load)
    topics_read = 2 if "\non:" in load.definition else 1
    share = topics_read * load.partitions // load.orchestrators
    topics = world.topics
    properties = ClientProperties({"bootstrap.servers": bootstrap})
    log = log_type(
        properties,
        group=topics.orchestrator_group,
        transactional_id=f"{topics.orchestrator_group}.{instance}",
        state_topics={topics.inbox: topics.state},
    )
    definitions = KafkaDefinitionLog(properties, topics.definitions)
    engine = assemble(world.settings, log, definitions, world.registry)

    def stopping() -> bool:
        health = engine.health()
        if health.owned >= share and health.ready:
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


def participants(bell: Bell, bootstrap: str, prefix: str, load: Load, linger_ms: int) -> None:
    """Answer each command at once; of a failing load, the third step is always rejected."""
    world = World(bootstrap, prefix, load)
    answers = {type_: (reply, world.encoded(reply)) for type_, (reply, _) in REPLIES.items()}
    if load.failing:
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
    site: Site, sagas: int, load: Load = ORDERS, *, latency: bool = False, per_s: float | None = None
) -> dict[str, float]:
    """Run the engine once: saturated; one saga at a time with `latency`; at a steady rate with `per_s`."""
    prefix = f"engine-{uuid4().hex[:8]}-"
    once(set_up, site.bootstrap, prefix, load)
    if load.standing:
        once(preload, site.bootstrap, prefix, load)
    with running(*roles(site.bootstrap, prefix, load, linger_ms=0 if latency or per_s else 2)) as pids:
        watched = {**pids, "broker": [site.broker]}
        return once(drive, site.bootstrap, prefix, load, sagas, latency, per_s, watched)  # type: ignore[no-any-return]


def preload(bootstrap: str, prefix: str, load: Load) -> None:
    """Have as many sagas wait as the load says."""
    write_states(World(bootstrap, prefix, load), load.standing)


def roles(bootstrap: str, prefix: str, load: Load, linger_ms: int) -> list[tuple[Any, tuple[Any, ...]]]:
    """The processes of a run, the driver left out."""
    return [
        *((orchestrator, (bootstrap, prefix, load, instance)) for instance in range(load.orchestrators)),
        (participants, (bootstrap, prefix, load, linger_ms)),
    ]


def start(world: World, number: int) -> clients.StartRecord:
    """The record that starts a saga: of the inbox, or the domain event that does."""
    key = f"order-{number:08d}"
    value = world.encoded("shop.orders.OrderPlaced", key)
    if world.load.triggered:
        topic = world.topics.service_topic("orders.events")
        return clients.StartRecord(topic, None, key.encode(), value, [], key.encode())
    saga_id = ids.saga_id(world.settings.namespace, world.load.saga, key)
    message = messages.StartMessage(
        saga_id=saga_id, definition=world.load.saga, key=key, payload=Payload(framed=value, encoding=CONFLUENT)
    )
    said = envelope.Envelope(message_id=f"start-{number}", source="/bench", at_ms=time.time_ns() // 1_000_000)
    partition = partition_of(saga_id.encode(), world.load.partitions)
    out = messages.encode_start(message, said, world.own, world.topics, partition)
    return clients.StartRecord(out.topic, partition, out.key, out.value or b"", list(out.headers), key.encode())


def drive(
    bootstrap: str, prefix: str, load: Load, sagas: int, latency: bool, per_s: float | None, pids: Pids
) -> dict[str, float]:
    """Start the sagas and wait for their ends; run in a process of its own."""
    world = World(bootstrap, prefix, load)
    starts = [start(world, number) for number in range(sagas + clients.warm_up(latency))]
    writer = clients.producer(bootstrap, linger_ms=0 if latency or per_s else 5)
    ends = clients.Ends(bootstrap, world.topics.service_topic("ended.events"), load.partitions)
    return clients.driven(writer, starts, ends, pids, latency=latency, per_s=per_s)
