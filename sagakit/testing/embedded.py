"""librdkafka's mock broker inside this process, and a schema registry: the real client over TCP, nothing to install.

It is a stand-in for trying things out. What it lacks is in `EMBEDDED_LIMITS` and is said in the log at each start;
prove nothing on it that a broker promises.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.testing.errors import ServerError, ServerFailedError
from sagakit.testing.kafka import ClientProperties

EMBEDDED_LIMITS = (
    "The embedded Kafka has no transaction isolation, no fencing, no committed transactional offsets, no compaction "
    "and no topic administration, and keeps about 5 MiB per partition. Nothing survives this process."
)

_logger = logging.getLogger(__name__)


class EmbeddedKafka:
    """A mock cluster of this process: `with EmbeddedKafka() as kafka: Producer(kafka.client_properties())`.

    Topics come into being by use, with four partitions each. Other processes may connect as long as this one lives.
    """

    def __init__(self, brokers: int = 1) -> None:
        """Describe the cluster; nothing runs before `start`."""
        if brokers < 1:
            raise ValueError(f"a cluster has at least one broker, not {brokers}")
        self._brokers = brokers
        self._owner: Producer | None = None  # the mock cluster lives in this client's instance and dies with it
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """The `bootstrap.servers` of clients."""
        if self._owner is None:
            raise ServerError("The embedded Kafka is not running; call start() first.")
        return self._bootstrap

    def client_properties(self, user: str | None = None) -> ClientProperties:
        """The properties to connect with; there are no users here."""
        if user is not None:
            raise ServerError(f"No user {user!r}: the embedded Kafka has no authentication.")
        return {"bootstrap.servers": self.bootstrap}

    def start(self) -> Self:
        """Start the cluster, and say in the log what it cannot do."""
        if self._owner is not None:
            raise ServerError("The embedded Kafka is running already.")
        owner = Producer({"test.mock.num.brokers": self._brokers, "log_level": 0})
        brokers = owner.list_topics(timeout=10).brokers.values()
        if len(brokers) != self._brokers:
            raise ServerFailedError(f"The embedded Kafka came up with {len(brokers)} of {self._brokers} brokers.")
        self._bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        self._owner = owner
        _logger.warning(EMBEDDED_LIMITS)
        return self

    def stop(self) -> None:
        """Stop the cluster; its clients lose their connections and its records are gone."""
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class EmbeddedPair:
    """The embedded Kafka and a registry of this process: `with EmbeddedPair() as pair: AvroCodec(pair.registry)`.

    The registry checks compatibility as a real one does, by `default_compatibility` where a subject has no level of its
    own. It is no server: it has no URL, and is handed to whatever takes a `SchemaRegistry`.
    """

    def __init__(self, brokers: int = 1, default_compatibility: str = "BACKWARD") -> None:
        """Describe the pair; nothing runs before `start`."""
        self.kafka = EmbeddedKafka(brokers)
        self._default_compatibility = default_compatibility
        self._registry: MemoryRegistry | None = None

    @property
    def registry(self) -> MemoryRegistry:
        """The registry; empty after each start."""
        if self._registry is None:
            raise ServerError("The embedded pair is not running; call start() first.")
        return self._registry

    def start(self) -> Self:
        """Start the cluster beside an empty registry."""
        self.kafka.start()
        self._registry = MemoryRegistry(self._default_compatibility)
        return self

    def stop(self) -> None:
        """Stop the cluster; its records and the registered schemas are gone."""
        self._registry = None
        self.kafka.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
