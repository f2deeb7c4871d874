"""The stage of the default demo: one process, librdkafka's mock cluster, a thread for each of those who work.

What it cannot promise is what the mock cluster lacks (`EMBEDDED_LIMITS`): it shows how sagas run, and proves nothing
about crashes. `--kafka` does.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from sagakit.adapters.client_properties import ClientProperties, make_producer
from sagakit.adapters.embedded_log import EmbeddedLog, EmbeddedStore
from sagakit.adapters.kafka_definitions import KafkaDefinitionLog
from sagakit.adapters.kafka_messages import KafkaMessages
from sagakit.adapters.kafka_sender import KafkaSender
from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.app.orchestrator import CLOSE_DEADLINE_S, assemble
from sagakit.app.settings import Settings
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.own import OwnRecords, own_schemas
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.demo.stage import (
    ORDERS,
    Death,
    DemoError,
    Stage,
    definition_bundle,
    readers,
    shop_schemas,
    shop_services,
)
from sagakit.orchestrator.clock import wall_clock_ms
from sagakit.orchestrator.loop import Orchestrator
from sagakit.participants import Formats, RuntimeSettings, Service, ServiceExchange, ServiceRuntime
from sagakit.ports.log import Outgoing
from sagakit.ports.registry import SchemaRegistry
from sagakit.testing.embedded import EmbeddedKafka
from services.books import SERVICES
from services.ledger import DIRECTORY_VARIABLE

PARTITIONS: Final = 4
"""What every topic of the mock cluster has."""

_CLIENTS: Final = {
    # The mock cluster answers a fetch that finds nothing only when its time is up, whatever comes meanwhile.
    "consumer.fetch.wait.max.ms": 10,
    # And it says good-bye to nobody: when it stops, every client would note a lost connection.
    "log.connection.close": False,
}

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 20.0
_LOOK_EVERY_S: Final = 0.05
_SHUTDOWN_S: Final = 1.0
_HANDLER_THREADS: Final = 2
"""Per service. One interpreter runs them all, so more would only wait for each other."""


class Crew:
    """The threads of the stage. Each works until it is told to stop; one that ends sooner has failed."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._stops: list[Callable[[], None]] = []
        self._failures: list[tuple[str, BaseException]] = []

    @property
    def stopping(self) -> Callable[[], bool]:
        """Whether everybody should stop."""
        return self._stopping.is_set

    def employ(self, name: str, work: Callable[[], None], stop: Callable[[], None] | None = None) -> None:
        """Start a thread for `work`; `stop` makes it return, where asking `stopping` is not enough."""
        thread = threading.Thread(target=self._guarded, args=(name, work), name=f"demo-{name}", daemon=True)
        self._threads.append(thread)
        if stop is not None:
            self._stops.append(stop)
        thread.start()

    def look(self) -> None:
        """See `Supervisor.look`."""
        if self._failures:
            name, error = self._failures[0]
            raise DemoError(f"{name} has failed: {type(error).__name__}: {error}") from error

    def deaths(self) -> Sequence[Death]:
        """Nobody dies in one process."""
        return ()

    def dismiss(self) -> None:
        """Stop all threads.

        Raises:
            DemoError: one of them does not end in time.
        """
        self._stopping.set()
        for stop in self._stops:
            stop()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if late := [thread.name for thread in self._threads if thread.is_alive()]:
            raise DemoError(f"{', '.join(late)} did not end within {_STOP_TIMEOUT_S} s; the process ends without them")

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - kept for `look`, on whose thread it can be answered
            self._failures.append((name, error))
            return
        if not self._stopping.is_set():
            self._failures.append((name, RuntimeError("it ended by itself")))


@contextmanager
def embedded_stage(ledgers: Path) -> Iterator[Stage]:
    """Everything in this process, taken down at the end of the block.

    Raises:
        DemoError: somebody fails before the stage is ready.
    """
    with ExitStack() as closings:
        kafka = closings.enter_context(EmbeddedKafka())
        closings.enter_context(_ledgers_in(ledgers))
        properties = ClientProperties({"bootstrap.servers": kafka.bootstrap, **_CLIENTS})
        settings = Settings(bootstrap=kafka.bootstrap, partitions=PARTITIONS, namespace="default", topic_prefix="")
        registry = _filled_registry()
        services = {name: service for name, (service, _) in shop_services().items()}
        _make_topics(properties, settings)
        _publish_definition(properties, settings, registry)
        crew = Crew()
        closings.callback(crew.dismiss)
        running = [_employ_service(crew, service, settings, registry) for service in services.values()]
        orchestrators: list[Orchestrator] = []
        crew.employ(
            "orchestrator", partial(_orchestrate, properties, settings, registry, crew.stopping, orchestrators.append)
        )
        _wait_until(crew, lambda: _all_ready(orchestrators, running), "ready")
        yield Stage(
            settings=settings,
            properties=properties,
            registry=registry,
            ledgers=ledgers,
            readers=readers(settings.topics),
            supervisor=crew,
        )


@contextmanager
def _ledgers_in(folder: Path) -> Iterator[None]:
    """The services' databases lie in `folder` meanwhile, and are closed afterwards."""
    before = os.environ.get(DIRECTORY_VARIABLE)
    os.environ[DIRECTORY_VARIABLE] = str(folder)
    try:
        yield
    finally:
        for _, ledger in shop_services().values():
            ledger.close()
        if before is None:
            del os.environ[DIRECTORY_VARIABLE]
        else:
            os.environ[DIRECTORY_VARIABLE] = before


def _filled_registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    for name, text in [*own_schemas().items(), *shop_schemas().items()]:
        registry.register(name, text)
    return registry


def _make_topics(properties: ClientProperties, settings: Settings) -> None:
    """The mock cluster makes a topic when it is first asked for."""
    topics = settings.topics
    names = [topics.inbox, topics.backlog, topics.state, topics.definitions, topics.dead_letters]
    names += [topics.service_topic(ORDERS), *map(topics.commands, SERVICES)]
    producer = make_producer(properties.producer(defaults={}, fixed={}))
    try:
        for name in names:
            producer.list_topics(name, timeout=10)
    except KafkaException as error:
        raise DemoError(f"the embedded Kafka makes no topics: {error}") from error
    finally:
        producer.close()


def _publish_definition(properties: ClientProperties, settings: Settings, registry: SchemaRegistry) -> None:
    published = definition_bundle()
    fields = {
        "name": published.name,
        "version": published.version,
        "canonical": published.canonical,
        "hash": published.hash,
        "source": published.source,
        "schemas": dict(published.schemas),
        "first_offsets": [],
        "command_partitions": {},
        "published_at_ms": wall_clock_ms(),
        "published_by": "demo",
    }
    value = OwnRecords(registry).encode("PublishedDefinition", fields)
    key = f"{published.name}/{published.version}".encode()
    with closing(KafkaSender(properties)) as sender:
        sender.send([Outgoing(settings.topics.definitions, 0, key, value, ())])


def _employ_service(
    crew: Crew, service: Service, settings: Settings, registry: SchemaRegistry
) -> tuple[ServiceRuntime, int]:
    """Start a service in a thread; gives its runtime and how many partitions it will handle."""
    avro = AvroCodec(registry)
    formats = Formats(
        registry=registry,
        avro=avro,
        own=OwnRecords(registry),
        payloads=PlainPayloadCodec(avro),
        topics=settings.topics,
    )
    exchange = ServiceExchange(service, formats, clock_ms=wall_clock_ms, clock=time.monotonic)
    connect = partial(
        KafkaMessages,
        properties=ClientProperties(_CLIENTS),
        bootstrap_servers=settings.bootstrap,
        group=settings.topics.service_group(service.name),
        topics=exchange.topics,
    )
    runtime = ServiceRuntime(
        service,
        answering=exchange,
        connect=lambda listener: connect(listener=listener),
        settings=RuntimeSettings(threads=_HANDLER_THREADS, shutdown_s=_SHUTDOWN_S),
    )
    crew.employ(service.name, runtime.run, runtime.stop)
    return runtime, len(exchange.topics) * PARTITIONS


def _orchestrate(
    properties: ClientProperties,
    settings: Settings,
    registry: SchemaRegistry,
    stopping: Callable[[], bool],
    started: Callable[[Orchestrator], None],
) -> None:
    topics = settings.topics
    log = EmbeddedLog(properties, EmbeddedStore(), state_topics={topics.inbox: topics.state})
    try:
        with closing(KafkaDefinitionLog(properties, topics.definitions)) as definitions:
            orchestrator = assemble(settings, log, definitions, registry)
            started(orchestrator)
            orchestrator.run(stopping)
    finally:
        log.close(CLOSE_DEADLINE_S)


def _all_ready(orchestrators: Sequence[Orchestrator], services: Sequence[tuple[ServiceRuntime, int]]) -> bool:
    if not orchestrators or any(len(runtime.assigned) < wanted for runtime, wanted in services):
        return False
    health = orchestrators[0].health()
    return health.ready and health.owned == 2 * PARTITIONS  # the inbox and the topic that starts sagas


def _wait_until(crew: Crew, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not condition():
        crew.look()
        if time.monotonic() > deadline:
            raise DemoError(f"the stage was not {what} within {_START_TIMEOUT_S} s")
        time.sleep(_LOOK_EVERY_S)
