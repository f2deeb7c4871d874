"""What the checks share: clients, and topics and groups under one unique prefix that are removed at the end."""

import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import structlog
from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from sagakit.adapters.client_properties import ClientProperties, Property, make_admin, make_consumer, make_producer
from sagakit.adapters.kafka_offsets import told_offset
from sagakit.adapters.kafka_records import error_of
from sagakit.app.settings import Settings

TIMEOUT_S: Final = 15.0

_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the client has no types here

_log = structlog.get_logger("sagakit.doctor")

# Some checks provoke errors on purpose; what the clients say of them would only frighten.
_silent: Final = logging.getLogger("sagakit.doctor.provoked")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class Probe:
    """Makes clients, topics and groups for checks: `with Probe(settings) as probe: ...`."""

    def __init__(self, settings: Settings, properties: ClientProperties) -> None:
        self.settings = settings
        self.prefix = f"{settings.topic_prefix}sagakit-doctor-{uuid4().hex[:10]}"
        self.admin: AdminClient = make_admin(properties.admin())
        self._properties = properties
        self._topics: list[str] = []
        self._groups: list[str] = []
        self._configs: dict[tuple[ResourceType, str], Mapping[str, str]] = {}

    def topic(self, name: str, *, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Make a topic, and give its full name once every partition has a leader.

        Raises:
            KafkaException: the broker does not make it.
        """
        full = f"{self.prefix}.{name}"
        request = NewTopic(full, partitions, replication_factor=1, config=dict(config or {}))
        self.admin.create_topics([request], request_timeout=TIMEOUT_S)[full].result()
        self._topics.append(full)
        self.wait(lambda: self._has_leaders(full, partitions), f"the leaders of {full}")
        return full

    def group(self, name: str) -> str:
        """The full name of a consumer group that is removed at the end."""
        self._groups.append(f"{self.prefix}.{name}")
        return self._groups[-1]

    def producer(self, properties: Mapping[str, Any] | None = None) -> Producer:
        """A producer with these properties."""
        fixed = dict(properties or {})
        return make_producer({"logger": _silent, **self._properties.producer(defaults={}, fixed=fixed)})

    def transactional(self, name: str, *, timeout_ms: int = 10_000) -> Producer:
        """A transactional producer that has begun its life."""
        producer = self.producer({"transactional.id": f"{self.prefix}.{name}", "transaction.timeout.ms": timeout_ms})
        producer.init_transactions(TIMEOUT_S)
        return producer

    def consumer(self, group: str) -> Consumer:
        """A consumer of committed records; its group moves all partitions at each change of members."""
        fixed: dict[str, Property] = {
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "partition.assignment.strategy": "range",
            "session.timeout.ms": 10_000,
        }
        return make_consumer({"logger": _silent, **self._properties.consumer(defaults={}, fixed=fixed)})

    def ends(self, topic: str) -> tuple[int, int]:
        """The last stable offset and the high watermark of a topic's partition 0."""
        partition = KafkaPartition(topic, 0)
        stable, high = (
            self.admin.list_offsets({partition: _LATEST}, isolation_level=level, request_timeout=TIMEOUT_S)
            for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
        )
        return told_offset(next(iter(stable.values())), least=0), told_offset(next(iter(high.values())), least=0)

    def config(self, kind: ResourceType, name: str) -> Mapping[str, str]:
        """The configuration of a broker or topic, by property.

        Raises:
            KafkaException: it may not be read.
        """
        if (kind, name) not in self._configs:
            resource = ConfigResource(kind, name)
            entries = self.admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource].result()
            self._configs[kind, name] = {
                entry.name: entry.value for entry in entries.values() if entry.value is not None
            }
        return self._configs[kind, name]

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Ask until the broker says that `condition` holds.

        Raises:
            TimeoutError: it does not within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come about within {timeout_s:.0f} s")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove what was made; what cannot be removed is named, and harms nobody."""
        for name, future in self._removals():
            try:
                future.result()
            except KafkaException as exception:
                _log.warning("the doctor could not remove what it made", name=name, reason=error_of(exception).str())

    def _removals(self) -> list[tuple[str, Any]]:
        removals: list[tuple[str, Any]] = []
        if self._topics:
            removals += self.admin.delete_topics(self._topics, request_timeout=TIMEOUT_S).items()
        if self._groups:
            removals += self.admin.delete_consumer_groups(self._groups, request_timeout=TIMEOUT_S).items()
        return removals

    def _has_leaders(self, topic: str, partitions: int) -> bool:
        found = self.admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions
        return len(found) == partitions and all(one.leader >= 0 for one in found.values())
