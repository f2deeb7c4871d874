"""The play itself: place orders, watch their sagas, wait until everything is settled, judge."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException

from sagakit.adapters.client_properties import ClientProperties, make_consumer
from sagakit.adapters.kafka_reader import KafkaReader
from sagakit.adapters.kafka_records import client_partition
from sagakit.adapters.kafka_sender import KafkaSender
from sagakit.client import Client, Composer
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.demo.stage import DEFINITION, ORDER_PLACED, ORDERS, DemoError, Stage
from sagakit.demo.verdict import Placed
from sagakit.demo.watch import Standing, Watch
from sagakit.ports.log import TopicPartition
from sagakit.telemetry.tracing import instrument_producer
from services.demo_orders import Order

STALLED_S: Final = 90.0
"""When nothing has happened for so long, the play is over, whatever has not ended."""

_TICK_S: Final = 0.05
_REQUEST_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How far the play has come: orders placed of all, sagas by standing, and kills."""

    orders: int
    placed: int
    standings: Mapping[Standing, int]
    kills: int

    @property
    def ended(self) -> int:
        """How many sagas have ended or wait for a person."""
        return sum(count for standing, count in self.standings.items() if standing is not Standing.RUNNING)


class Play:
    """One play on one stage. A context manager; everything is called from one thread."""

    def __init__(self, stage: Stage, orders: Sequence[Order], per_second: float) -> None:
        """`per_second` is how many orders are placed in a second."""
        self._stage = stage
        self._orders = orders
        self._per_second = per_second
        self._closings = ExitStack()
        self.placed: list[Placed] = []

    def __enter__(self) -> "Play":
        """Connect.

        Raises:
            DemoError: the brokers do not answer.
        """
        stage, topics = self._stage, self._stage.settings.topics
        avro = AvroCodec(stage.registry)
        own = OwnRecords(stage.registry)
        try:
            partitions = self._partitions(
                [topics.backlog, *(name for names in stage.readers.values() for name in names)]
            )
        except KafkaException as error:
            raise DemoError(f"the brokers do not answer: {error}") from error
        self._watch = Watch(
            stage.properties, partitions, topics.backlog, own, PlainPayloadCodec(avro), lambda: time.monotonic() * 1000
        )
        self._closings.callback(self._watch.close)
        self._groups = {
            group: self._closings.enter_context(closing(Group(stage.properties, group))) for group in stage.readers
        }
        composer = Composer(
            registry=stage.registry,
            topics=topics,
            partitions=stage.settings.partitions,
            source="/shop/checkout",
            own=own,
        )
        # A plain producer, and so the one place where OpenTelemetry may instrument: here each order's trace begins.
        self._client = Client(composer, KafkaSender(stage.properties, instrument=instrument_producer))
        self._closings.callback(self._client.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._closings.close()

    @property
    def watch(self) -> Watch:
        """What was seen."""
        return self._watch

    def run(self, show: Callable[[Moment], None]) -> None:
        """Place all orders and wait until nothing is under way; give up when nothing happens any more.

        Raises:
            DemoError: somebody on the stage failed.
        """
        began = last = time.monotonic()
        while True:
            self._place_due(time.monotonic() - began)
            took = self._watch.take(_TICK_S)
            self._stage.supervisor.look()
            moment = self._moment()
            show(moment)
            if took:
                last = time.monotonic()
            elif time.monotonic() - last > STALLED_S or (moment.ended == len(self._orders) and self._is_settled()):
                return

    def _place_due(self, elapsed_s: float) -> None:
        due = min(len(self._orders), int(elapsed_s * self._per_second) + 1)
        if due <= len(self.placed):
            return
        compose = self._client.compose
        messages = []
        for order in self._orders[len(self.placed) : due]:
            order_id = order["order_id"]
            messages.append(
                compose.event(
                    ORDERS,
                    order_id,
                    ORDER_PLACED,
                    compose.payload(ORDER_PLACED, order),
                    at_ms=time.time_ns() // 1_000_000,
                    event_id=f"placed-{order_id}",
                )
            )
            self.placed.append(
                Placed(saga_id=compose.saga_id(DEFINITION, order_id), order=order, at_ms=time.monotonic() * 1000)
            )
        self._client.send(messages)

    def _moment(self) -> Moment:
        return Moment(
            orders=len(self._orders),
            placed=len(self.placed),
            standings=self._watch.tally(),
            kills=len(self._stage.supervisor.deaths()),
        )

    def _is_settled(self) -> bool:
        """Whether every group has committed everything that was seen in its topics."""
        for group, topics in self._stage.readers.items():
            wanted = {one: next_ for one, next_ in self._watch.next_offsets.items() if one.topic in topics and next_}
            committed = self._groups[group].committed(wanted)
            if any(committed[one] < next_ for one, next_ in wanted.items()):
                return False
        return True

    def _partitions(self, topics: Collection[str]) -> list[TopicPartition]:
        reader = KafkaReader(self._stage.properties)
        try:
            return [TopicPartition(name, number) for name in set(topics) for number in range(reader.partitions(name))]
        finally:
            reader.close()


class Group:
    """What a consumer group has committed, asked without joining it."""

    def __init__(self, properties: ClientProperties, group: str) -> None:
        self._consumer = make_consumer(properties.consumer(defaults={}, fixed={"group.id": group}))

    def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The next offset of each partition; negative where none is known."""
        if not partitions:
            return {}
        try:
            found = self._consumer.committed([client_partition(one) for one in partitions], _REQUEST_TIMEOUT_S)
        except KafkaException:  # its coordinator is away for a moment: nothing is known now, and it is asked again
            return dict.fromkeys(partitions, -1)
        return {TopicPartition(one.topic, one.partition): one.offset for one in found}

    def close(self) -> None:
        """Release the client."""
        self._consumer.close()
