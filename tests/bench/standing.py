"""What the engine costs beyond speed: a restore, a waiting saga's memory, records and bytes on the wire."""

import gc
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

from confluent_kafka import TopicPartition as Position

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_log import KafkaLog
from sagakit.app.orchestrator import calm_garbage_collector
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.snapshots import encode_state
from sagakit.core.schedule import next_due_ms
from sagakit.orchestrator.memory import Entry, PartitionMemory
from sagakit.ports.log import Assigned, Restored, StateRead, TopicPartition
from tests.bench import clients, engine
from tests.bench.loads import ORDERS, PARTITIONS, Load
from tests.bench.roles import Site, once, running
from tests.bench.waiting import waiting_saga, write_states
from tests.bench.world import World

_STATE_TOPICS: Final = {"cleanup.policy": "compact"}


_ONE: Final = Load(partitions=1)


def _fill(bootstrap: str, prefix: str, snapshots: int) -> None:
    world = World(bootstrap, prefix, _ONE)
    inbox, state = world.topics.inbox, world.topics.state
    clients.create_topics(bootstrap, {inbox: {}, state: _STATE_TOPICS}, {}, 1)
    write_states(world, snapshots)
    writer = clients.producer(bootstrap, linger_ms=0)
    writer.produce(inbox, b"one", b"one", partition=0)
    writer.flush()


def restore(site: Site, snapshots: int) -> dict[str, float]:
    """Snapshots a second from the begin of a restore to memory that may decide."""
    prefix = f"restore-{uuid4().hex[:8]}-"
    once(_fill, site.bootstrap, prefix, snapshots)
    return {"snapshots_per_s": once(_restore, site.bootstrap, prefix, snapshots)}


def _restore(bootstrap: str, prefix: str, snapshots: int) -> float:
    topics = World(bootstrap, prefix).topics
    calm_garbage_collector()  # as every orchestrator process does
    log = KafkaLog(
        ClientProperties({"bootstrap.servers": bootstrap}),
        group=topics.orchestrator_group,
        transactional_id=f"{prefix}restore",
        state_topics={topics.inbox: topics.state},
    )
    log.subscribe([topics.inbox])
    memory, began = PartitionMemory(), 0.0
    while not memory.restored:
        for change in log.poll(1.0).changes:
            if isinstance(change, Assigned):
                began = time.perf_counter()
                log.restore(TopicPartition(topics.inbox, 0), None)
            elif isinstance(change, StateRead):
                memory.read(change.records)
            elif isinstance(change, Restored):
                memory.finish_restore(change.next_offset)
    took_s = time.perf_counter() - began
    assert len(memory.entries) == snapshots, f"{len(memory.entries)} of {snapshots} snapshots were restored"
    log.close(5)
    return snapshots / took_s


def bare_restore(site: Site, snapshots: int) -> dict[str, float]:
    """The same by a bare consumer that fills a dictionary."""
    prefix = f"bare-{uuid4().hex[:8]}-"
    once(_fill, site.bootstrap, prefix, snapshots)
    return {"snapshots_per_s": once(_bare_restore, site.bootstrap, prefix, snapshots)}


def _bare_restore(bootstrap: str, prefix: str, snapshots: int) -> float:
    topics = World(bootstrap, prefix).topics
    reader = clients.consumer(
        bootstrap,
        f"{prefix}bare",
        **{
            "queued.max.messages.kbytes": 262_144,
            "max.partition.fetch.bytes": 8_388_608,
            "queued.min.messages": 1_000_000,
        },
    )
    found: dict[bytes, bytes] = {}
    began = time.perf_counter()
    reader.assign([Position(topics.state, 0, 0)])
    while len(found) < snapshots:
        for message in reader.consume(10_000, 0.2):
            key, value = message.key(), message.value()
            if isinstance(key, bytes) and value is not None:
                found[key] = value
    took_s = time.perf_counter() - began
    reader.close()
    return snapshots / took_s


def memory(sagas: int) -> dict[str, float]:
    """Bytes of resident memory for each saga that only waits, as a restore leaves it."""
    return {"bytes_per_waiting_saga": once(_memory, sagas), "bytes_of_its_snapshot": once(_snapshot_size)}


def _memory(sagas: int) -> float:
    world = World("unused:1", "memory.")
    payloads = PlainPayloadCodec(world.avro)
    held = PartitionMemory()
    gc.collect()
    before = _resident_bytes()
    for number in range(sagas):
        saga = waiting_saga(number)
        held.apply(saga.saga_id.encode(), Entry(encode_state(saga, world.own, payloads), next_due_ms(saga)))
    gc.collect()
    return (_resident_bytes() - before) / sagas


def _snapshot_size() -> float:
    world = World("unused:1", "memory.")
    return float(len(encode_state(waiting_saga(1), world.own, PlainPayloadCodec(world.avro))))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def wire(site: Site, sagas: int) -> dict[str, float]:
    """Records and bytes (keys, values, headers, uncompressed) for each saga that completes, by topic."""
    bootstrap, prefix = site.bootstrap, f"wire-{uuid4().hex[:8]}-"
    once(engine.set_up, bootstrap, prefix, ORDERS)
    with running(*engine.roles(bootstrap, prefix, ORDERS, linger_ms=2)):
        once(engine.drive, bootstrap, prefix, ORDERS, sagas, False, None, {})
    return dict(once(_count, bootstrap, prefix, sagas + clients.warm_up(latency=False)))


def _count(bootstrap: str, prefix: str, sagas: int) -> Mapping[str, float]:
    topics = World(bootstrap, prefix).topics
    counted = {
        "inbox": [topics.inbox],
        "backlog": [topics.backlog],
        "state": [topics.state],
        "commands": [topics.commands(service) for service in engine.SERVICES],
        "events": [topics.service_topic("ended.events")],
    }
    result: dict[str, float] = {}
    for name, names in counted.items():
        records = size = 0
        for topic in names:
            more_records, more_size = _sizes(bootstrap, topic)
            records, size = records + more_records, size + more_size
        result[f"{name}_records"], result[f"{name}_bytes"] = records / sagas, size / sagas
    result["records"] = sum(v for k, v in result.items() if k.endswith("_records"))
    result["bytes"] = sum(v for k, v in result.items() if k.endswith("_bytes"))
    return result


def _sizes(bootstrap: str, topic: str) -> tuple[int, int]:
    reader = clients.consumer(bootstrap, f"{topic}-sizes", **{"enable.partition.eof": True})
    reader.assign([Position(topic, partition, 0) for partition in range(PARTITIONS)])
    records = size = ended = 0
    while ended < PARTITIONS:
        for message in reader.consume(1000, 1.0):
            if message.error():
                ended += 1
                continue
            records += 1
            size += len(message.key() or b"") + len(message.value() or b"")
            size += sum(len(name) + len(value or b"") for name, value in engine.headers_of(message))
    reader.close()
    return records, size
