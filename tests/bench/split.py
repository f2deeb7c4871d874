"""Where the time of a saga goes that runs alone: into deciding, into each part of the commits, or on the way.

The orchestrator notes when it was busy with what; the driver when each saga began and ended. Both read one clock.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import confluent_kafka

from sagakit.adapters import kafka_log
from sagakit.adapters.kafka_producer import TransactionalProducer
from sagakit.ports.log import Batch, Outcome, Outgoing, Work
from tests.bench import clients, engine
from tests.bench.loads import ORDERS, Load
from tests.bench.roles import Bell, Site, once, running
from tests.bench.world import World

PARTS: Final = ("decide", "produce", "offsets", "end")
"""Of a cycle: deciding and encoding; handing the records to the client; adding the offsets, with which the transaction
meets its coordinator; flushing and ending it."""

_SLOWEST: Final = 0.02


class Span(NamedTuple):
    """The orchestrator was busy with a part, from and to, in seconds of the machine's monotonic clock."""

    part: str
    began_s: float
    ended_s: float


_spans: list[Span] = []


class _TimedProducer(TransactionalProducer):
    def _produce(self, producer: confluent_kafka.Producer, records: Sequence[Outgoing]) -> None:
        began_s = time.monotonic()
        super()._produce(producer, records)
        _spans.append(Span("produce", began_s, time.monotonic()))

    def _send_offsets(self, producer: confluent_kafka.Producer, offsets: Any, group_metadata: object) -> None:
        began_s = time.monotonic()
        super()._send_offsets(producer, offsets, group_metadata)
        _spans.append(Span("offsets", began_s, time.monotonic()))


class _TimedLog(kafka_log.KafkaLog):
    _polled_s = 0.0

    def poll(self, timeout_s: float) -> Batch:
        batch = super().poll(timeout_s)
        self._polled_s = time.monotonic()
        return batch

    def commit(self, work: Work) -> Outcome:
        began_s = time.monotonic()
        _spans.append(Span("decide", self._polled_s, began_s))
        outcome = super().commit(work)
        _spans.append(Span("end", _spans[-1].ended_s, time.monotonic()))
        return outcome


def orchestrator(bell: Bell, bootstrap: str, prefix: str, load: Load, spans: str) -> None:
    """The engine's role, which writes down what it was busy with."""
    vars(kafka_log)["TransactionalProducer"] = _TimedProducer
    engine.orchestrator(bell, bootstrap, prefix, load, 0, _TimedLog)
    Path(spans).write_text(json.dumps(_spans))


def measure(site: Site, sagas: int) -> dict[str, float]:
    """Milliseconds per saga in each part: the median saga's, and those of the slowest fiftieth, on average."""
    prefix = f"split-{uuid4().hex[:8]}-"
    once(engine.set_up, site.bootstrap, prefix, ORDERS)
    file, spans = tempfile.mkstemp(suffix=".json")
    os.close(file)
    roles: list[tuple[Any, tuple[Any, ...]]] = [
        (orchestrator, (site.bootstrap, prefix, ORDERS, spans)),
        (engine.participants, (site.bootstrap, prefix, ORDERS, 0)),
    ]
    with running(*roles):
        ran = once(_drive, site.bootstrap, prefix, sagas)
    cycles = [Span(*one) for one in json.loads(Path(spans).read_text())]
    Path(spans).unlink()
    return split(ran, cycles)


def _drive(bootstrap: str, prefix: str, sagas: int) -> list[tuple[float, float]]:
    world = World(bootstrap, prefix)
    starts = [engine.start(world, number) for number in range(sagas + clients.WARM_UP_ALONE)]
    writer = clients.producer(bootstrap, linger_ms=0)
    ends = clients.Ends(bootstrap, world.topics.service_topic("ended.events"))
    return [clients.alone(writer, one, ends) for one in starts][clients.WARM_UP_ALONE :]


def split(sagas: Sequence[tuple[float, float]], spans: Iterable[Span]) -> dict[str, float]:
    """What each part took of sagas that ran one after the other, each from and to."""
    spent = [dict.fromkeys(PARTS, 0.0) for _ in sagas]
    number = 0
    for one in sorted(spans, key=lambda span: span.began_s):
        while number < len(sagas) and one.began_s > sagas[number][1]:
            number += 1
        if number < len(sagas) and one.began_s >= sagas[number][0]:
            spent[number][one.part] += min(one.ended_s, sagas[number][1]) - one.began_s
    rows = [
        {"all": ended_s - began_s, **parts, "on the way": ended_s - began_s - sum(parts.values())}
        for (began_s, ended_s), parts in zip(sagas, spent, strict=True)
    ]
    slowest = sorted(rows, key=lambda row: row["all"])[-max(1, int(len(rows) * _SLOWEST)) :]
    result: dict[str, float] = {}
    for part in ("all", *PARTS, "on the way"):
        result[f"{part}: median ms"] = statistics.median(row[part] for row in rows) * 1000
        result[f"{part}: slowest 2 %, mean ms"] = statistics.fmean(row[part] for row in slowest) * 1000
    return result
