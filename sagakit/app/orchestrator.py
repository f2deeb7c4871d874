"""The orchestrator process, wired: the only place where the loop meets Kafka and the registry."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from sagakit.adapters.kafka_definitions import KafkaDefinitionLog
from sagakit.adapters.kafka_log import KafkaLog
from sagakit.app.connect import client_properties, connect_registry
from sagakit.app.purging import purging
from sagakit.app.settings import Settings
from sagakit.app.upgrading import instance_client_id
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.orchestrator.catalog import Catalog
from sagakit.orchestrator.clock import Clock, wall_clock_ms
from sagakit.orchestrator.decider import Decider
from sagakit.orchestrator.loop import Orchestrator
from sagakit.orchestrator.reader import Reader
from sagakit.orchestrator.writer import Writer
from sagakit.ports.log import DefinitionLog, TransactionalLog
from sagakit.ports.registry import SchemaRegistry

CLOSE_DEADLINE_S: Final = 5.0
"""How long leaving the group and closing the clients may take."""


_YOUNG_OBJECTS: Final = 500_000
"""By how many objects the process grows between two looks for garbage in cycles, of which the loop makes none.

More than a full cycle holds until it is committed (some 80 a record), so that none is looked through (default: 700).
"""


def calm_garbage_collector() -> None:
    """Have the garbage collector look seldom, and never at what lives as long as the process.

    States in memory are bytes in tuples, which reference counting frees. Looking through a million of them again and
    again for cycles cost a fifth of the loop's time, and more with every saga that waits.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)


def assemble(
    settings: Settings,
    log: TransactionalLog,
    definitions: DefinitionLog,
    registry: SchemaRegistry,
    *,
    register: bool = False,
    own: OwnRecords | None = None,
    clock: Clock = wall_clock_ms,
) -> Orchestrator:
    """An orchestrator over any log and registry. `register`: it may register sagakit's own schemas (embedded, tests).

    `own` is given where many orchestrators of one process share what compiling these schemas costs.
    """
    own = own or OwnRecords(registry, register=register)
    avro = AvroCodec(registry)
    payloads = PlainPayloadCodec(avro)
    topics = settings.topics
    catalog = Catalog(definitions, own, topics.service_topic, clock)
    reader = Reader(settings.namespace, own, payloads)
    writer = Writer(settings.namespace, topics, settings.partitions, own, payloads, avro, settings.max_record_bytes)
    decider = Decider(settings.namespace, settings.partitions, topics.inbox, catalog, reader, writer)
    return Orchestrator(log, catalog, decider, topics.inbox, clock)


@contextmanager
def kafka_orchestrator(settings: Settings) -> Iterator[Orchestrator]:
    """An orchestrator on a real Kafka and registry, closed within a deadline at the end.

    All schemas of sagakit's own records are learnt here, before it joins the group: while it works the registry may go
    away, and the first rejection, park or control must still be written down.

    Raises:
        RegistryUnavailableError, UnknownSchemaError: the registry does not answer, or lacks one of these schemas.
        LogUnavailableError: the broker does not answer or refuses this instance.
    """
    properties, topics = client_properties(settings), settings.topics
    with ExitStack() as closing:
        registry = closing.enter_context(connect_registry(settings))
        own = OwnRecords(registry)
        own.prepare()
        log = KafkaLog(
            properties,
            group=topics.orchestrator_group,
            transactional_id=f"{topics.orchestrator_group}.{settings.instance}",
            state_topics={topics.inbox: topics.state},
            client_id=instance_client_id(settings.instance),
        )
        closing.callback(log.close, CLOSE_DEADLINE_S)
        definitions = KafkaDefinitionLog(properties, topics.definitions, group=topics.orchestrator_group)
        closing.callback(definitions.close)
        closing.enter_context(purging(properties, topics.orchestrator_group, [topics.inbox]))
        yield assemble(settings, log, definitions, registry, own=own)


def run_orchestrator(settings: Settings, stopping: Callable[[], bool], started: Callable[[Orchestrator], None]) -> None:
    """Run one instance until `stopping` says so; `started` is given it once, for its health.

    Raises:
        LogUnavailableError: the broker does not answer at start, or another instance took over this one's identity.
    """
    with kafka_orchestrator(settings) as orchestrator:
        calm_garbage_collector()
        started(orchestrator)
        orchestrator.run(stopping)
