"""Bare clients, set alike for the floor and for the engine's surroundings, so that only the engine differs."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.bench.loads import PARTITIONS
from tests.bench.roles import CpuMeter, Pids


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


def create_topics(
    bootstrap: str,
    topics: Mapping[str, Mapping[str, str]],
    partitions: Mapping[str, int],
    default: int = PARTITIONS,
) -> None:
    """Create topics with their configurations; `default` partitions each but where `partitions` says otherwise."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = [NewTopic(name, partitions.get(name, default), 1, config=dict(c)) for name, c in topics.items()]
    for future in admin.create_topics(wanted).values():
        future.result()


class Ends:
    """Counts the records of a topic: here, the sagas that ended."""

    def __init__(self, bootstrap: str, topic: str, partitions: int = PARTITIONS) -> None:
        self._consumer = consumer(bootstrap, f"{topic}-ends", **{"isolation.level": "read_committed"})
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])

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

    def arrived(self, within_s: float) -> list[bytes]:
        """The keys of what has come, waiting no longer than for the first."""
        first = self._consumer.poll(within_s)
        messages = [] if first is None else [first, *self._consumer.consume(1000, 0)]
        keys = [message.key() for message in messages if not message.error()]
        return [key for key in keys if isinstance(key, bytes)]


class StartRecord(NamedTuple):
    """A record that starts a saga, made before the clock runs: what a client costs is not measured.

    `ends_as` is the key of the record that tells of the saga's end.
    """

    topic: str
    partition: int | None
    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]
    ends_as: bytes


def _send(producer_: Producer, record: StartRecord) -> None:
    partition = -1 if record.partition is None else record.partition
    producer_.produce(record.topic, record.value, record.key, partition=partition, headers=record.headers)
    producer_.poll(0)


WARM_UP: Final = 500
"""How many sagas run before the clock does: by then every consumer fetches."""


def driven(
    producer_: Producer,
    starts: Sequence[StartRecord],
    ends: Ends,
    pids: Pids,
    *,
    latency: bool = False,
    per_s: float | None = None,
) -> dict[str, float]:
    """Start sagas one by one with `latency`, at a steady rate with `per_s`, all at once without either."""
    if latency:
        return one_by_one(producer_, starts, ends)
    return saturated(producer_, starts, ends, pids) if per_s is None else paced(producer_, starts, ends, per_s)


def saturated(producer_: Producer, starts: Sequence[StartRecord], ends: Ends, pids: Pids) -> dict[str, float]:
    """Start all sagas but the first ones at once, and wait for their ends.

    Sagas per second, and microseconds of CPU per saga: of each of `pids`, of the driver, and of all without the driver.
    """
    _start_all(producer_, starts[:WARM_UP])
    ends.wait(WARM_UP, 60)
    timed = starts[WARM_UP:]
    meter, driver = CpuMeter(pids), CpuMeter({"driver": [os.getpid()]})
    began = time.perf_counter()
    _start_all(producer_, timed)
    ends.wait(len(timed), 300)
    rate = len(timed) / (time.perf_counter() - began)
    used = meter.seconds()
    costs = {**used, "all": sum(used.values()), **driver.seconds()}
    return {"sagas_per_s": rate} | {f"{name}_cpu_us": used_s / len(timed) * 1e6 for name, used_s in costs.items()}


def paced(producer_: Producer, starts: Sequence[StartRecord], ends: Ends, per_s: float) -> dict[str, float]:
    """Start sagas at a steady rate, whatever becomes of them; end-to-end percentiles in milliseconds.

    A start counts from when it was due, so that a driver that falls behind does not hide a wait.
    """
    _start_all(producer_, starts[:WARM_UP])
    ends.wait(WARM_UP, 60)
    timed = starts[WARM_UP:]
    began = time.perf_counter()
    due_at = {one.ends_as: began + number / per_s for number, one in enumerate(timed)}
    waits: list[float] = []
    sent = 0
    while len(waits) < len(timed):
        now = time.perf_counter()
        while sent < len(timed) and began + sent / per_s <= now:
            _send(producer_, timed[sent])
            sent += 1
        arrived = ends.arrived(0.001)
        now = time.perf_counter()
        waits += [(now - due_at[key]) * 1000 for key in arrived]
        if now > began + len(timed) / per_s + 60:
            raise TimeoutError(f"{len(waits)} of {len(timed)} sagas ended at {per_s:.0f} a second")
    return percentiles(waits)


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
    ran = [alone(producer_, record, ends) for record in starts]
    return percentiles([(ended_s - began_s) * 1000 for began_s, ended_s in ran[WARM_UP_ALONE:]])


def alone(producer_: Producer, record: StartRecord, ends: Ends) -> tuple[float, float]:
    """Start a saga and wait for its end; when that was, in seconds of the machine's monotonic clock."""
    began_s = time.monotonic()
    _send(producer_, record)
    producer_.flush()
    ends.wait(1, 30)
    return began_s, time.monotonic()


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The median and the tail of some times in milliseconds."""
    ranked = sorted(values)
    return {f"p{q}_ms": ranked[min(len(ranked) - 1, len(ranked) * q // 100)] for q in (50, 90, 99)}
