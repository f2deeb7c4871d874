"""Sagas that only wait: their states as an orchestrator would have left them, in bulk."""

import time

from confluent_kafka import TopicPartition as Position

from sagakit.contracts import envelope
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.contracts.snapshots import encode_state
from sagakit.core import ids
from sagakit.core.address import Address
from sagakit.core.placement import partition_of
from sagakit.core.schedule import next_due_ms
from sagakit.core.state import Saga, Status, Step, StepStatus
from tests.bench import clients
from tests.bench.world import ORDER, World

_LONG_MS = 86_400_000
"""No timer of theirs comes due while a benchmark runs."""


def waiting_saga(number: int, now_ms: int = 1_795_000_000_000) -> Saga:
    """A saga of the order definition that waits for its second reply."""
    key = f"waiting-{number:08d}"
    start = {name: ORDER[name] for name in ("address", "amount_cents", "card_token", "currency", "customer_id")}
    return Saga(
        saga_id=ids.saga_id("default", "three-steps", key),
        run=number,
        seq=5,
        definition="three-steps",
        version=1,
        engine_level=1,
        key=key,
        status=Status.RUNNING,
        at_ms=now_ms,
        deadline_at_ms=now_ms + 2 * _LONG_MS,
        start_message_id=f"start-{number}",
        data={"start": {**start, "order_id": key, "items": ORDER["items"]}, "reserve": {}},
        steps={
            Address("reserve"): Step(status=StepStatus.SUCCEEDED, attempt=1),
            Address("charge"): Step(
                status=StepStatus.IN_FLIGHT, attempt=1, unknown=(1,), due_at_ms=now_ms + _LONG_MS + number
            ),
        },
    )


def write_states(world: World, sagas: int) -> None:
    """Write the states of so many waiting sagas, and the offsets of an orchestrator that has read nothing."""
    payloads = PlainPayloadCodec(world.avro)
    partitions, topics = world.load.partitions, world.topics
    writer = clients.producer(world.bootstrap, linger_ms=20)
    now_ms = time.time_ns() // 1_000_000
    for number in range(sagas):
        saga = waiting_saga(number, now_ms)
        key = saga.saga_id.encode()
        headers: list[tuple[str, str | bytes | None]] = [(envelope.DUE, b"%d" % (next_due_ms(saga) or 0))]
        value = encode_state(saga, world.own, payloads)
        writer.produce(topics.state, value, key, partition=partition_of(key, partitions), headers=headers)
        writer.poll(0)
    writer.flush()
    offsets = clients.consumer(world.bootstrap, topics.orchestrator_group)
    offsets.commit(offsets=[Position(topics.inbox, one, 0) for one in range(partitions)], asynchronous=False)
    offsets.close()
