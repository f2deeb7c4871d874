"""Bare clients, set alike for the floor and for the engine's surroundings, so that only the engine differs."""

import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4


def consumer(bootstrap: str, group: str, **more: str | int | bool) -> Consumer:
    """A group consumer that drains fast and waits little."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 10,
            "queued.min.messages": 10_000,
            **more,
        }
    )


def producer(bootstrap: str, *, linger_ms: int, **more: str | int | bool) -> Producer:
    """An idempotent producer that compresses."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": linger_ms,
            "enable.idempotence": True,
            "queue.buffering.max.messages": 1_000_000,
            "log_level": 3,
            **more,
        }
    )


def drained(consumer_: Consumer, most: int) -> list[Message]:
    """The first message within 50 ms and whatever is local by then; nothing after an idle wait."""
    first = consumer_.poll(0.05)
    if first is None:
        return []
    return [message for message in (first, *consumer_.consume(most - 1, 0)) if not message.error()]


def create_topics(bootstrap: str, topics: Mapping[str, Mapping[str, str]], partitions: Mapping[str, int]) -> None:
    """Create topics with their configurations; four partitions each but where `partitions` says otherwise."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = [NewTopic(name, partitions.get(name, PARTITIONS), 1, config=dict(c)) for name, c in topics.items()]
    for future in admin.create_topics(wanted).values():
        future.result()


class Ends:
    """Counts the records of a topic: here, the sagas that ended."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = consumer(bootstrap, f"{topic}-ends", **{"isolation.level": "read_committed"})
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])

    def wait(self, count: int, timeout_s: float) -> None:
        """Wait for so many more records.

        Raises:
            TimeoutError: fewer came.
        """
        deadline, seen = time.perf_counter() + timeout_s, 0
        while seen < count:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{seen} of {count} sagas ended within {timeout_s:.0f} s")
            messages = self._consumer.consume(min(1000, count - seen), 0.2)
            seen += sum(1 for message in messages if not message.error())

    def close(self) -> None:
        """Release the consumer."""
        self._consumer.close()


class StartRecord(NamedTuple):
    """A record that starts a saga, made before the clock runs: what a client costs is not measured."""

    topic: str
    partition: int | None
    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


def _send(producer_: Producer, record: StartRecord) -> None:
    partition = -1 if record.partition is None else record.partition
    producer_.produce(record.topic, record.value, record.key, partition=partition, headers=record.headers)
    producer_.poll(0)


WARM_UP: Final = 500
"""How many sagas run before the clock does: by then every consumer fetches."""


def saturated(producer_: Producer, starts: Sequence[StartRecord], ends: Ends) -> float:
    """Start all sagas but the first ones at once, and wait for their ends; sagas per second."""
    _start_all(producer_, starts[:WARM_UP])
    ends.wait(WARM_UP, 60)
    timed = starts[WARM_UP:]
    began = time.perf_counter()
    _start_all(producer_, timed)
    ends.wait(len(timed), 300)
    return len(timed) / (time.perf_counter() - began)


def _start_all(producer_: Producer, starts: Sequence[StartRecord]) -> None:
    for record in starts:
        _send(producer_, record)
    producer_.flush()


WARM_UP_ALONE: Final = 50
"""How many sagas run before the first that is timed alone."""


def warm_up(latency: bool) -> int:
    """How many more sagas a run starts than it measures."""
    return WARM_UP_ALONE if latency else WARM_UP


def one_by_one(producer_: Producer, starts: Sequence[StartRecord], ends: Ends) -> dict[str, float]:
    """Start one saga after the other; end-to-end percentiles in milliseconds, without the first fifty."""
    waits = []
    for record in starts:
        began = time.perf_counter()
        _send(producer_, record)
        producer_.flush()
        ends.wait(1, 30)
        waits.append((time.perf_counter() - began) * 1000)
    waits = sorted(waits[WARM_UP_ALONE:])
    return {f"p{q}_ms": waits[min(len(waits) - 1, len(waits) * q // 100)] for q in (50, 90, 99)}
