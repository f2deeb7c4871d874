"""The floor: the least that an exactly-once saga engine on Kafka must do for the order saga, with no engine in it.

A saga that succeeds writes 4 inbox records (start and three replies), 3 commands, 8 backlog records, 4 states and 1
event; one that fails at its third step writes 6, 5, 12, 6 and 1. Raw fastavro, one transaction a cycle with the
offsets in it.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any
from uuid import uuid4

import fastavro
from confluent_kafka import Message, Producer
from confluent_kafka import TopicPartition as Position

from tests.bench import clients
from tests.bench.roles import Bell, Pids, Site, once, running

BATCH = 2000
LAST = {False: 3, True: 5}
"""The number of a saga's last inbox record: three replies, or two, a rejection and two undone."""

SCHEMA = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Step",
        "fields": [
            {"name": "saga_id", "type": "string"},
            {"name": "number", "type": "int"},
            {"name": "rejected", "type": "boolean"},
            {"name": "order_id", "type": "string"},
            {"name": "customer_id", "type": "string"},
            {"name": "amount_cents", "type": "long"},
            {
                "name": "items",
                "type": {
                    "type": "array",
                    "items": {
                        "type": "record",
                        "name": "Line",
                        "fields": [{"name": "sku", "type": "string"}, {"name": "quantity", "type": "int"}],
                    },
                },
            },
        ],
    }
)
LINES = [{"sku": "sku-000001", "quantity": 2}, {"sku": "sku-000002", "quantity": 1}]
HEADERS: list[tuple[str, str | bytes | None]] = [
    ("ce_specversion", b"1.0"),
    ("ce_id", uuid4().hex.encode()),
    ("ce_type", b"bench.Step"),
    ("ce_source", b"/bench/floor"),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


def encoded(saga_id: str, number: int, rejected: bool) -> bytes:
    """One framed record."""
    out = BytesIO(b"\0\0\0\0\1")
    out.seek(5)
    fields = {
        "saga_id": saga_id,
        "number": number,
        "rejected": rejected,
        "order_id": f"order-{saga_id}",
        "customer_id": f"customer-{saga_id[:8]}",
        "amount_cents": 4200,
        "items": LINES,
    }
    fastavro.schemaless_writer(out, SCHEMA, fields)
    return out.getvalue()


def decoded(value: bytes | None) -> dict[str, Any]:
    """The fields of a framed record."""
    source = BytesIO(value or b"")
    source.seek(5)
    fields = fastavro.schemaless_reader(source, SCHEMA, None)
    assert isinstance(fields, dict)
    return fields


def orchestrator(bell: Bell, bootstrap: str, prefix: str, linger_ms: int, instance: int) -> None:
    """Two backlog records, one state and one command or event for each inbox record, and the memory of a saga."""
    reader = clients.consumer(bootstrap, f"{prefix}orchestrator")
    reader.subscribe([f"{prefix}inbox"])
    writer = clients.producer(bootstrap, linger_ms=linger_ms, **{"transactional.id": f"{prefix}{instance}"})
    writer.init_transactions()
    memory: dict[bytes, bytes] = {}
    while not bell.stopped:
        messages = clients.drained(reader, BATCH)
        if not bell.said and reader.assignment():
            bell.ready()
        if not messages:
            continue
        writer.begin_transaction()
        offsets: dict[int, int] = {}
        for message in messages:
            _decide(writer, message, memory, prefix)
            offsets[_number(message.partition())] = _number(message.offset()) + 1
        positions = [Position(f"{prefix}inbox", partition, offset) for partition, offset in offsets.items()]
        writer.send_offsets_to_transaction(positions, reader.consumer_group_metadata())
        writer.commit_transaction()
    reader.close()


def _number(value: int | None) -> int:
    assert value is not None
    return value


def _decide(writer: Producer, message: Message, memory: dict[bytes, bytes], prefix: str) -> None:
    step = decoded(message.value())
    saga_id, number, rejected = step["saga_id"], step["number"], step["rejected"]
    key, partition = saga_id.encode(), _number(message.partition())
    if key in memory:
        decoded(memory[key])
    for nth in range(2):
        seq = b"/0/%d" % (2 * number + nth)
        value = encoded(saga_id, number, rejected)
        writer.produce(f"{prefix}backlog", value, key + seq, partition=partition, headers=HEADERS)
    ended = number == LAST[rejected]
    state = b"ended" if ended else encoded(saga_id, number, rejected)
    writer.produce(f"{prefix}state", state, key, partition=partition, headers=HEADERS)
    topic = f"{prefix}events" if ended else f"{prefix}commands"
    writer.produce(topic, encoded(saga_id, number, rejected), key, headers=HEADERS)
    if ended:
        memory.pop(key, None)
    else:
        memory[key] = state


def participants(bell: Bell, bootstrap: str, prefix: str, linger_ms: int) -> None:
    """Answer each command at once, without a transaction."""

    def reply(message: Message, writer: Producer) -> None:
        step = decoded(message.value())
        value = encoded(step["saga_id"], step["number"] + 1, step["rejected"])
        writer.produce(f"{prefix}inbox", value, message.key(), headers=HEADERS)

    answer(bell, bootstrap, f"{prefix}participants", [f"{prefix}commands"], linger_ms, reply)


def answer(
    bell: Bell,
    bootstrap: str,
    group: str,
    topics: list[str],
    linger_ms: int,
    reply: Callable[[Message, Producer], None],
) -> None:
    """The loop of a bare participant: drain, reply to each, flush, commit."""
    reader = clients.consumer(bootstrap, group)
    reader.subscribe(topics)
    writer = clients.producer(bootstrap, linger_ms=linger_ms)
    while not bell.stopped:
        messages = clients.drained(reader, BATCH)
        if not bell.said and reader.assignment():
            bell.ready()
        for message in messages:
            reply(message, writer)
        if messages:
            writer.flush()
            reader.commit(asynchronous=True)
    reader.close()


def measure(
    site: Site, sagas: int, *, latency: bool, failing: bool = False, orchestrators: int = 1, per_s: float | None = None
) -> dict[str, float]:
    """Run the floor once: saturated; one saga at a time with `latency`; at a steady rate with `per_s`."""
    prefix = f"floor-{uuid4().hex[:8]}-"
    names = [f"{prefix}{name}" for name in ("inbox", "backlog", "state", "commands", "events")]
    once(clients.create_topics, site.bootstrap, {name: {} for name in names}, {})
    linger_ms = 0 if latency or per_s else 2
    roles: list[tuple[Any, tuple[Any, ...]]] = [
        (orchestrator, (site.bootstrap, prefix, linger_ms, instance)) for instance in range(orchestrators)
    ]
    with running(*roles, (participants, (site.bootstrap, prefix, linger_ms))) as pids:
        watched = {**pids, "broker": [site.broker]}
        return once(  # type: ignore[no-any-return]
            _drive, site.bootstrap, prefix, sagas, latency, failing, per_s, watched
        )


def _drive(
    bootstrap: str, prefix: str, sagas: int, latency: bool, failing: bool, per_s: float | None, pids: Pids
) -> dict[str, float]:
    starts = []
    for _ in range(sagas + clients.warm_up(latency)):
        saga_id = str(uuid4())
        value, key = encoded(saga_id, 0, failing), saga_id.encode()
        starts.append(clients.StartRecord(f"{prefix}inbox", None, key, value, HEADERS, key))
    writer = clients.producer(bootstrap, linger_ms=0 if latency or per_s else 5)
    ends = clients.Ends(bootstrap, f"{prefix}events")
    return clients.driven(writer, starts, ends, pids, latency=latency, per_s=per_s)
