"""One shop for a proof: a namespace of its own on the house's servers, everybody in a process started by the command
line, orders placed as long as it takes, and all that happens watched."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from sagakit.adapters.client_properties import make_admin, make_consumer
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_reader import KafkaReader
from sagakit.adapters.kafka_records import client_partition, to_records
from sagakit.adapters.kafka_sender import KafkaSender
from sagakit.app.connect import client_properties, connect_registry
from sagakit.app.settings import Settings
from sagakit.client import Client, Composer
from sagakit.client.composer import Composed
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.core.definition import Definition
from sagakit.core.evolve import fold
from sagakit.core.placement import partition_of
from sagakit.core.schedule import next_due_ms
from sagakit.core.state import Saga
from sagakit.core.transitions import Transition
from sagakit.core.values import Data, Payload
from sagakit.demo.cluster import child_environment, provision, wait_until_ready
from sagakit.demo.play import Group
from sagakit.demo.processes import Kills, Troupe
from sagakit.demo.stage import (
    DEFINITION,
    DEFINITION_FILE,
    ORDER_PLACED,
    ORDERS,
    PROJECT,
    Stage,
    readers,
    shop_schemas,
)
from sagakit.demo.verdict import Placed
from sagakit.demo.watch import Standing, Watch
from sagakit.language.canonical import Bundle, bundle, compile_bundle
from sagakit.language.lint import lint_text
from sagakit.ports.log import Outgoing, Record, TopicPartition
from sagakit.testing.process import Process
from services.books import SERVICES
from services.demo_orders import Order, orders
from services.ledger import DIRECTORY_VARIABLE
from services.shipping.carriers import CARRIERS
from tests.prove.house import House, ProofFailedError, require

QUICK_ORDER: Final = Path(__file__).with_name("quick_order.yaml")
BY_HAND: Final = Path(__file__).with_name("by_hand.yaml")
LONG_WAIT: Final = Path(__file__).with_name("long_wait.yaml")
DESK: Final = "desk"
"""The service of `by_hand.yaml` and `long_wait.yaml`."""

WAIT_S: Final = 90.0
_TICK_S: Final = 0.05
_A_GOOD_WHILE_MS: Final = 600_000
_CHUNK: Final = 5_000
_SHOWN: Final = 20
_LATE: Final = frozenset(country for country, carrier in CARRIERS.items() if carrier.late_attempts)
_MADE_UP: Final = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who plays: services and orchestrators, what is published, and where processes are to kill themselves."""

    services: tuple[str, ...] = SERVICES
    orchestrators: int = 2
    definitions: tuple[Path, ...] = (DEFINITION_FILE,)
    orchestrator_environment: Mapping[str, str] = field(default_factory=dict)
    kills: Kills | None = None
    late_carrier: bool = False
    """Whether some orders go to the carrier that answers too late: each then takes longer than a step's timeout."""
    seed: int = 1


def bundle_of(file: Path, text: str | None = None) -> Bundle:
    """A definition as it is published; `text` in place of the file's own."""
    text = file.read_text(encoding="utf-8") if text is None else text
    linted = lint_text(text, shop_schemas(), file.name)
    assert linted.document is not None, linted.findings
    assert linted.ok, linted.findings
    return bundle(linted.document, text, shop_schemas())


class Shop:
    """An open shop. To be used from one thread, as a context manager."""

    def __init__(self, house: House, folder: Path, prefix: str, cast: Cast) -> None:
        """Its processes write to `<folder>/logs`, its services' books are in `<folder>/ledgers`."""
        self.house = house
        self.folder = folder
        self.cast = cast
        self.settings: Settings = house.settings(prefix)
        self.topics = self.settings.topics
        self.ledgers = folder / "ledgers"
        self.kill_log = folder / "kills.jsonl"
        self.placed: list[Placed] = []
        self._told: dict[str, list[Transition]] = {}
        self._resting: dict[str, int] = {}
        self.copied_starts: Counter[str] = Counter()
        """How often the proof itself wrote again the start that an event became, by the event's id."""
        self.definitions: dict[tuple[str, int], Definition] = {}
        made_up = orders(_MADE_UP, cast.seed)
        self._orders = (one for one in made_up if cast.late_carrier or one["address"]["country"] not in _LATE)
        self._closings = ExitStack()

    def __enter__(self) -> "Shop":
        """Open: topics, schemas and definitions, then everybody, until each partition has its reader."""
        try:
            self._open()
        except BaseException:
            self._closings.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closings.close()

    def _open(self) -> None:
        self.ledgers.mkdir(parents=True)
        bundles = [bundle_of(file) for file in self.cast.definitions]
        for one in bundles:
            self.know(one)
        others = [DESK] if {BY_HAND, LONG_WAIT} & set(self.cast.definitions) else []
        provision(self.settings, bundles, others)
        self.properties = client_properties(self.settings)
        self.registry = self._closings.enter_context(connect_registry(self.settings))
        self.own = OwnRecords(self.registry)
        self.payloads = PlainPayloadCodec(AvroCodec(self.registry))
        self._offsets = Offsets(self.properties)
        self.sender = KafkaSender(self.properties, timeout_s=60)
        composer = Composer(
            registry=self.registry,
            topics=self.topics,
            partitions=self.settings.partitions,
            source="/proof",
            own=self.own,
        )
        self.client = Client(composer, self.sender)
        self._closings.callback(self.client.close)
        self.readers = self._readers(others)
        self._groups = {
            name: self._closings.enter_context(closing(Group(self.properties, name))) for name in self.readers
        }
        partitions = self.partitions(
            self.topics.backlog, *(topic for names in self.readers.values() for topic in names)
        )
        self.watch = Watch(
            self.properties, partitions, self.topics.backlog, self.own, self.payloads, lambda: time.monotonic() * 1000
        )
        self._closings.callback(self.watch.close)
        self.troupe = Troupe(
            {**child_environment(self.settings, self.folder), DIRECTORY_VARIABLE: str(self.ledgers)},
            self.folder / "logs",
            self.cast.kills or Kills(count=0, seed=0, log=self.kill_log),
        )
        self._closings.callback(self.troupe.dismiss)
        for name in self.cast.services:
            self.start_service(name)
        for number in range(1, self.cast.orchestrators + 1):
            self.start_orchestrator(number)
        self.wait_until_ready()

    # Who is at work.

    def start_orchestrator(
        self, number: int, environment: Mapping[str, str] | None = None, root: Path = PROJECT
    ) -> Process:
        """Start an instance of the orchestrator; `root` is the tree that it runs from."""
        own = {**self.cast.orchestrator_environment, **(environment or {})}
        return self.troupe.start(f"orchestrator-{number}", ["orchestrator"], own, root)

    def start_service(self, name: str, instance: str | None = None) -> Process:
        """Start an instance of one of the shop's services; its name is the service's without `instance`."""
        return self.troupe.start(instance or name, ["service", f"services.{name}.app:app"])

    def wait_until_ready(self) -> None:
        """Wait until each partition of the groups that have somebody at work has its reader."""
        working = {self.topics.service_group(name) for name in self.cast.services}
        if any(name.startswith("orchestrator") for name in self.troupe.names):
            working.add(self.topics.orchestrator_group)
        wait_until_ready(
            Stage(
                settings=self.settings,
                properties=self.properties,
                registry=self.registry,
                ledgers=self.ledgers,
                readers={name: topics for name, topics in self.readers.items() if name in working},
                supervisor=self.troupe,
            )
        )

    # What is asked of them.

    def next_orders(self, count: int) -> list[Order]:
        """Orders that nobody has placed yet."""
        return [next(self._orders) for _ in range(count)]

    def place(self, count: int) -> list[Placed]:
        """Place that many orders, as domain events."""
        return self.place_orders(self.next_orders(count))

    def place_orders(self, placing: Sequence[Order]) -> list[Placed]:
        """Place these orders, as domain events."""
        self.client.send([self.order_event(order) for order in placing])
        new = [
            Placed(
                saga_id=self.client.saga_id(DEFINITION, order["order_id"]), order=order, at_ms=time.monotonic() * 1000
            )
            for order in placing
        ]
        self.placed += new
        return new

    def order_event(self, order: Order, topic: str = ORDERS) -> Composed:
        """The event that an order was placed; the same order gives the same event, with the same id."""
        compose, order_id = self.client.compose, order["order_id"]
        payload = compose.payload(ORDER_PLACED, order)
        return compose.event(topic, order_id, ORDER_PLACED, payload, at_ms=now_ms(), event_id=f"placed-{order_id}")

    def start(self, definition: str, order: Order) -> Composed:
        """A start through the inbox."""
        payload = self.client.compose.payload(ORDER_PLACED, order)
        return self.client.compose.start(definition, order["order_id"], payload, at_ms=now_ms())

    def payload(self, record: str, data: Data) -> Payload:
        """Data as a record."""
        return self.client.payload(record, data)

    def write(self, *records: Outgoing) -> None:
        """Write records as they are, and wait until they are durable."""
        self.sender.send(records)

    def load(self, per_second: float, until: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Keep placing orders until something has happened; `what` names it to those who wait in vain."""
        began, placed = time.monotonic(), 0
        while not until():
            elapsed_s = time.monotonic() - began
            if elapsed_s > timeout_s:
                raise ProofFailedError(f"after {timeout_s:.0f} s and {placed} orders: not {what}")
            if (due := int(elapsed_s * per_second) - placed) > 0:
                self.place(min(due, 200))
                placed += min(due, 200)
            self.look()

    def look(self) -> None:
        """Take in what has happened, and start again whoever was killed on purpose."""
        self.watch.take(_TICK_S)
        self.troupe.look()

    def wait(self, until: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Wait for something; the error says what."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                raise ProofFailedError(f"not {what} after {timeout_s:.0f} s")
            self.look()

    def standing(self, saga_id: str) -> Standing | None:
        """How a saga stands; None if the backlog does not know it."""
        seen = self.watch.sagas.get(saga_id)
        return None if seen is None else seen.standing

    def has_ended(self, saga_ids: Sequence[str]) -> bool:
        """Whether all of these have ended, or wait for a person."""
        return all(self.standing(one) not in (None, Standing.RUNNING) for one in saga_ids)

    def is_at_rest(self, saga_ids: Iterable[str]) -> bool:
        """Whether the clock alone changes none of these for a good while, but for markers that expire.

        Less is not enough where people interfere: of a saga that waits for one, another branch may still be undone.
        """
        return all(self._rests(one) for one in saga_ids)

    def _rests(self, saga_id: str) -> bool:
        history = self.history(saga_id)
        if self._resting.get(saga_id) != len(history):
            state = fold(history)
            due_ms = next_due_ms(state) if isinstance(state, Saga) else None
            if due_ms is not None and due_ms < now_ms() + _A_GOOD_WHILE_MS:
                return False
            self._resting[saga_id] = len(history)
        return True

    def settle(self, timeout_s: float = WAIT_S) -> None:
        """Wait until all orders have ended and everything that was written has been read by whom it was for."""
        ids = [one.saga_id for one in self.placed]
        try:
            self.wait(lambda: self.has_ended(ids), "every saga has ended or waits for a person", timeout_s)
        except ProofFailedError as error:
            raise ProofFailedError(f"{error}; logs are in {self.folder}:\n  {self._what_runs_on(ids)}") from error
        self.wait(self.is_read, "everything that was written has been read", timeout_s)

    def _what_runs_on(self, saga_ids: Sequence[str]) -> str:
        """The sagas that have not ended, a line each, with the last that is known of them."""
        lines = []
        for saga_id in saga_ids:
            if self.has_ended([saga_id]):
                continue
            history = self.history(saga_id)
            where = f"partition {partition_of(saga_id.encode(), self.settings.partitions)}"
            last = history[-1] if history else None
            said = "not started" if last is None else f"{type(last).__name__} {last.header.step} at {last.header.at_ms}"
            lines.append(f"{saga_id}, {where}: {said}")
        return "\n  ".join([f"{len(lines)} of {len(saga_ids)}", *lines[:_SHOWN]])

    def is_read(self) -> bool:
        """Whether every group has committed all that its topics hold, and all of it was watched."""
        for group, topics in self.readers.items():
            if group == self.topics.service_group(DESK):  # the proof itself reads these, in no group
                continue
            ends = {one: end for one, end in self.watch.next_offsets.items() if one.topic in topics and end}
            committed = self._groups[group].committed(ends)
            if any(committed[one] < end for one, end in ends.items()):
                return False
        # Taken last: had anything been written meanwhile, it would stand beyond what was watched.
        return not self.watch.behind(self._offsets.stable_ends(self.watch.next_offsets))

    # What is known.

    def know(self, one: Bundle) -> None:
        """A definition that was published."""
        self.definitions[one.name, one.version] = compile_bundle(one.canonical, one.schemas)

    def definition_of(self, name: str, version: int) -> Definition:
        """The definition that a history names."""
        return self.definitions[name, version]

    def history(self, saga_id: str) -> list[Transition]:
        """What the backlog says of a saga, as far as it was watched."""
        seen = self.watch.sagas.get(saga_id)
        if seen is None:
            return []
        told = self._told.get(saga_id)
        if told is None or len(told) != len(seen.history):  # opened anew only where something has come
            told = self._told[saga_id] = [one for one in self.watch.history(saga_id) if isinstance(one, Transition)]
        return told

    def partitions(self, *topics: str) -> list[TopicPartition]:
        """All partitions of these topics."""
        with closing(KafkaReader(self.properties)) as reader:
            return [TopicPartition(name, number) for name in set(topics) for number in range(reader.partitions(name))]

    def read(self, topic: str) -> Iterator[Record]:
        """All committed records of a topic, in order within each partition; all partitions side by side."""
        left = self._offsets.stable_ends(self.partitions(topic))
        consumer = make_consumer(
            self.properties.consumer(
                defaults={"fetch.wait.max.ms": 10},
                fixed={"group.id": "proof.reader", "isolation.level": "read_committed"},
            )
        )
        try:
            consumer.assign([client_partition(one, 0) for one in left])
            deadline = time.monotonic() + WAIT_S
            while left:
                errors: list[Message] = []
                yield from to_records(consumer.consume(_CHUNK, _TICK_S), errors)
                require(time.monotonic() < deadline, f"{topic} cannot be read to its end: {errors or left}")
                # Control records are never delivered: only the position says how far we are.
                for one in consumer.position([client_partition(one) for one in left]):
                    partition = TopicPartition(one.topic, one.partition)
                    if one.offset >= left[partition] or left[partition] == 0:
                        del left[partition]
        finally:
            consumer.close()

    def stable_ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Up to where these can be read committed."""
        return self._offsets.stable_ends(partitions)

    def has_consumed(self, partitions: Collection[TopicPartition]) -> bool:
        """Whether the orchestrators have committed all that these hold."""
        ends = self.stable_ends(partitions)
        committed = self._groups[self.topics.orchestrator_group].committed(ends)
        return all(committed[one] >= end for one, end in ends.items() if end)

    @property
    def admin(self) -> AdminClient:
        """An admin client."""
        return make_admin(self.properties.admin())

    def _readers(self, others: Sequence[str]) -> Mapping[str, frozenset[str]]:
        found = readers(self.topics)
        used = {self.topics.service_group(name) for name in self.cast.services}
        triggers = {one.trigger_topic for one in self.definitions.values() if one.trigger_topic is not None}
        return {
            **{name: topics for name, topics in found.items() if name in used},
            **{self.topics.service_group(name): frozenset({self.topics.commands(name)}) for name in others},
            self.topics.orchestrator_group: frozenset({self.topics.inbox, *map(self.topics.service_topic, triggers)}),
        }


def now_ms() -> int:
    """The wall clock, in epoch milliseconds."""
    return time.time_ns() // 1_000_000
