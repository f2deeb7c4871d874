"""Setting a namespace up: its topics, sagakit's own schemas, and the record of what never changes again."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from sagakit.adapters.kafka_publisher import KafkaPublisher
from sagakit.adapters.topics import Difference, TopicAdmin, WantedTopic, plan
from sagakit.app.connect import client_properties, connect_registry, require_broker
from sagakit.app.published import NAMESPACE_KEY, NamespaceRecord, publisher_id, read_catalogue
from sagakit.app.settings import Settings
from sagakit.contracts import registration
from sagakit.contracts.own import OwnRecords, own_schemas
from sagakit.contracts.registration import Standing
from sagakit.core.turn import ENGINE_LEVEL, ENGINE_LEVELS
from sagakit.ports.log import Outgoing
from sagakit.ports.registry import IncompatibleSchemaError, SchemaRegistry, UnknownSchemaError

_FOREVER: Final = {"cleanup.policy": "delete", "retention.ms": "-1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTopics:
    """A service and the topics (without the prefix) whose events it handles."""

    name: str
    event_topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What `apply` did: topics made, the namespace record if it was written now, and what is still different."""

    made: tuple[str, ...]
    namespace: NamespaceRecord | None
    differences: tuple[Difference, ...]


class NamespaceDiffersError(Exception):
    """The namespace was made with another partition count, or is at a level of another release; it says what to do."""


def wanted_topics(
    settings: Settings, services: Collection[ServiceTopics] = (), others: Collection[str] = ()
) -> tuple[WantedTopic, ...]:
    """The topics of the namespace, of services with their dead-letter topics, and other service topics by name."""
    base = plan(
        settings.topics,
        partitions=settings.partitions,
        replication=settings.replication_factor,
        services=[service.name for service in services],
    )
    known = {topic.name for topic in base}
    pattern = next(topic for topic in base if topic.name == settings.topics.results)
    extra: dict[str, WantedTopic] = {}

    def add(name: str, why: str, *, forever: bool = False) -> None:
        full = settings.topics.service_topic(name)
        config = {**pattern.config, **_FOREVER} if forever else pattern.config
        if full not in known:
            extra.setdefault(full, replace(pattern, name=full, why=why, config=config))

    for service in services:
        add(f"{service.name}.commands.dlq", f"commands that {service.name} can never read", forever=True)
        for topic in service.event_topics:
            add(topic, f"events that {service.name} handles")
            add(f"{topic}.{service.name}.dlq", f"events of {topic} that {service.name} gave up", forever=True)
    for name in others:
        add(name, "asked for by name")
    return (*base, *extra.values())


def apply(settings: Settings, wanted: Sequence[WantedTopic], *, at_ms: int) -> Applied:
    """Make what is missing. Nothing that exists is changed.

    Raises:
        NamespaceDiffersError: the namespace was made with another partition count.
        TopicsUnavailableError, LogUnavailableError, RegistryUnavailableError: one of the servers does not answer.
    """
    require_broker(settings)
    made, differences = TopicAdmin(client_properties(settings)).apply(wanted)
    written = None
    with connect_registry(settings) as registry:
        register_own_schemas(registry)
        known = read_catalogue(settings).namespace
        if known is None:
            written = _write_namespace(settings, registry, at_ms)
        elif known.partitions != settings.partitions:
            raise NamespaceDiffersError(_differs(settings, known))
    return Applied(made=made, namespace=written, differences=differences)


def check(settings: Settings, wanted: Sequence[WantedTopic]) -> tuple[Difference, ...]:
    """Where the topics and the namespace record are not as they must be.

    Raises:
        TopicsUnavailableError, LogUnavailableError, RegistryUnavailableError: one of the servers does not answer.
    """
    require_broker(settings)
    differences = TopicAdmin(client_properties(settings)).check(wanted)
    if any(one.topic == settings.topics.definitions and one.setting == "topic" for one in differences):
        return differences
    known = read_catalogue(settings).namespace
    found = "missing" if known is None else str(known.partitions)
    if found == str(settings.partitions):
        return differences
    return (
        *differences,
        Difference(
            topic=settings.topics.definitions,
            setting="partitions of the namespace",
            wanted=str(settings.partitions),
            found=found,
            fatal=True,
        ),
    )


def require_topics(settings: Settings, wanted: Sequence[WantedTopic]) -> tuple[Difference, ...]:
    """The check at the start of every process; gives the differences that one can live with.

    Raises:
        TopicsDifferError: topics are missing or wrong.
        TopicsUnavailableError, LogUnavailableError: the broker does not answer.
    """
    require_broker(settings)
    return TopicAdmin(client_properties(settings)).require(wanted)


def require_namespace(settings: Settings) -> None:
    """The check of whoever places sagas in partitions.

    Raises:
        NamespaceDiffersError: the namespace is not set up, or was made with another partition count.
        LogUnavailableError, RegistryUnavailableError: one of the servers does not answer.
    """
    known = read_catalogue(settings).namespace
    if known is None:
        raise NamespaceDiffersError(
            f"the namespace {settings.namespace} has not been set up; run `sagakit topics apply`"
        )
    if known.partitions != settings.partitions:
        raise NamespaceDiffersError(_differs(settings, known))
    if known.engine_level not in ENGINE_LEVELS:
        raise NamespaceDiffersError(
            f"the namespace {settings.namespace} is at engine level {known.engine_level}, and this release runs level "
            f"{', '.join(map(str, ENGINE_LEVELS))}; deploy a release that runs {known.engine_level}"
        )


def require_own_schemas(settings: Settings) -> None:
    """The check of whoever writes sagakit's own records: a schema that is missing must not show at the first saga.

    Raises:
        NamespaceDiffersError: some are not registered as this release has them.
        RegistryUnavailableError: the registry does not answer.
    """
    try:
        with connect_registry(settings) as registry:
            OwnRecords(registry).prepare()
    except UnknownSchemaError as error:
        raise NamespaceDiffersError(
            "sagakit's own schemas are not registered as this release has them; run its `sagakit topics apply` "
            f"({error})"
        ) from error


def register_own_schemas(registry: SchemaRegistry) -> None:
    """Register the schemas of sagakit's own records; those that stand there already stay as they are.

    Raises:
        IncompatibleSchemaError: the registry holds a record of a release that does not go together with this one.
        RegistryUnavailableError: it does not answer.
    """
    compared = registration.compare(own_schemas(), registry)
    broken = [one.subject for one in compared if one.standing is Standing.INCOMPATIBLE]
    if broken:
        raise IncompatibleSchemaError(
            f"the registry holds {', '.join(broken)} of a release that does not go together with this one; see "
            "`sagakit schemas check`"
        )
    new = [one for one in compared if one.standing is not Standing.REGISTERED]
    registration.register(new, registry)


def _write_namespace(settings: Settings, registry: SchemaRegistry, at_ms: int) -> NamespaceRecord:
    record = NamespaceRecord(
        namespace=settings.namespace,
        partitions=settings.partitions,
        engine_level=ENGINE_LEVEL,
        created_at_ms=at_ms,
    )
    value = OwnRecords(registry).encode("NamespaceRecord", asdict(record))
    with KafkaPublisher(client_properties(settings), publisher_id(settings)) as publisher:
        # Between the look and the write somebody else may have set it up; now nobody can any more.
        known = read_catalogue(settings).namespace
        if known is not None and known.partitions != settings.partitions:
            raise NamespaceDiffersError(_differs(settings, known))
        if known is None:
            publisher.write([Outgoing(settings.topics.definitions, 0, NAMESPACE_KEY.encode(), value, ())])
    return known or record


def _differs(settings: Settings, known: NamespaceRecord) -> str:
    return (
        f"the namespace {settings.namespace} was made with {known.partitions} partitions, which is for its life; this "
        f"process is set to {settings.partitions}. Set SAGAKIT_PARTITIONS={known.partitions}, or make a new namespace"
    )
