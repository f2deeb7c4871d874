"""The definitions topic: what is published there, and publishing more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_publisher import KafkaPublisher
from sagakit.app.connect import (
    client_properties,
    connect_reader,
    connect_registry,
    known_topics,
    require_broker,
)
from sagakit.app.settings import Settings
from sagakit.contracts.errors import UndecodableError
from sagakit.contracts.own import OwnRecords
from sagakit.core.definition import Definition
from sagakit.language.canonical import Bundle, compile_bundle
from sagakit.language.publishing import Publish, PublishedVersion, Refused, Ruling, rule_all
from sagakit.ports.log import Outgoing, TopicPartition
from sagakit.ports.registry import SchemaRegistry, UnknownSchemaError

NAMESPACE_KEY: Final = "namespace"
"""The key of the namespace record; a definition's has a slash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedDefinition:
    """One version as it stands on the topic."""

    name: str
    version: int
    canonical: str
    hash: str
    source: str
    schemas: Mapping[str, str]
    first_offsets: Mapping[TopicPartition, int]
    command_partitions: Mapping[str, int]
    published_at_ms: int
    published_by: str | None

    def compiled(self) -> Definition:
        """The definition as the orchestrator runs it.

        Raises:
            InvalidDefinitionError: this release cannot compile it.
        """
        return compile_bundle(self.canonical, self.schemas)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceRecord:
    """What holds for a namespace from its beginning on."""

    namespace: str
    partitions: int
    engine_level: int
    created_at_ms: int
    raised_at_ms: int | None = None
    raised_by: str | None = None
    raised_because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Everything on the definitions topic; versions in order. `unreadable` says which keys hold something else."""

    namespace: NamespaceRecord | None = None
    definitions: Mapping[tuple[str, int], PublishedDefinition] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()


class PublishingRefusedError(Exception):
    """A definition may not be published, because what it needs to run is not there; the message says what to do."""


def publisher_id(settings: Settings) -> str:
    """The transactional id of whoever writes to the definitions topic: one for all, so that they exclude each other."""
    return f"{settings.topic_prefix}{settings.namespace}.publisher"


def read_catalogue(settings: Settings) -> Catalogue:
    """Read the definitions topic to its end.

    Raises:
        LogUnavailableError: the broker does not answer, or there is no such topic.
        RegistryUnavailableError: the registry does not answer.
        UndecodableError: the namespace record is none, or of a release that this one does not know.
    """
    latest: dict[bytes, bytes | None] = {}
    with connect_reader(settings) as reader:
        reader.partitions(settings.topics.definitions)
        for records in reader.read(TopicPartition(settings.topics.definitions, 0)):
            latest.update({record.key or b"": record.value for record in records})
    with connect_registry(settings) as registry:
        return _catalogue(latest, OwnRecords(registry))


def _catalogue(latest: Mapping[bytes, bytes | None], own: OwnRecords) -> Catalogue:
    namespace = None
    definitions: dict[tuple[str, int], PublishedDefinition] = {}
    unreadable: list[str] = []
    for key, value in latest.items():
        if value is None:
            continue
        try:
            record = own.decode(value)
        except UndecodableError:
            # Nothing else is lost by it; but who cannot read what holds for the namespace must not make it anew.
            if key == NAMESPACE_KEY.encode():
                raise
            unreadable.append(key.decode(errors="replace"))
            continue
        if record.name == "PublishedDefinition":
            found = _definition_of(record.fields)
            definitions[found.name, found.version] = found
        elif record.name == "NamespaceRecord":
            namespace = NamespaceRecord(**record.fields)
        else:
            unreadable.append(key.decode(errors="replace"))
    ordered = {key: definitions[key] for key in sorted(definitions)}
    return Catalogue(namespace=namespace, definitions=ordered, unreadable=tuple(unreadable))


class PublishedDefinitions:
    """The definitions topic as a `DefinitionStore`."""

    def __init__(self, settings: Settings, clock_ms: Callable[[], int]) -> None:
        self._settings = settings
        self._clock_ms = clock_ms

    def published(self) -> list[PublishedVersion]:
        """See `DefinitionStore.published`; errors as `read_catalogue`."""
        return [_version_of(known) for known in read_catalogue(self._settings).definitions.values()]

    def publish(self, bundles: Sequence[Bundle], by: str) -> list[Ruling]:
        """See `DefinitionStore.publish`.

        Another publisher at work is shut out first, so that what is ruled on is all there is. From the offsets at which
        the trigger topics end now, their records start sagas of the new versions.

        Raises:
            PublishingRefusedError: the namespace is not set up, or a topic or a schema is missing.
            LogUnavailableError, TopicsUnavailableError, RegistryUnavailableError: a server does not answer.
            RefusedError: the broker refuses the records, or another publisher took over.
        """
        settings = self._settings
        require_broker(settings)
        with (
            connect_registry(settings) as registry,
            KafkaPublisher(client_properties(settings), publisher_id(settings)) as publisher,
        ):
            catalogue = read_catalogue(settings)
            if catalogue.namespace is None:
                raise PublishingRefusedError(
                    f"the namespace {settings.namespace} has not been set up; run `sagakit topics apply`"
                )
            rulings = rule_all(map(_version_of, catalogue.definitions.values()), bundles)
            new = [ruling.bundle for ruling in rulings if isinstance(ruling, Publish)]
            if new and not any(isinstance(ruling, Refused) for ruling in rulings):
                _require(settings, registry, new)
                own, at_ms = OwnRecords(registry), self._clock_ms()
                publisher.write([_record(settings, own, bundle, by, at_ms) for bundle in new])
        return rulings


def _require(settings: Settings, registry: SchemaRegistry, bundles: Sequence[Bundle]) -> None:
    """Whatever a definition needs to run must be there before the first saga finds out."""
    problems: list[str] = []
    needed: dict[str, str] = {}
    for bundle in bundles:
        compiled = compile_bundle(bundle.canonical, bundle.schemas)
        for name in _service_topics(compiled):
            needed[settings.topics.service_topic(name)] = bundle.name
        problems += _unregistered(registry, bundle, compiled, settings)
    missing = needed.keys() - known_topics(settings).keys()
    if missing:
        problems.append(
            f"there is no topic {', '.join(sorted(missing))}; make it with `sagakit topics apply --service NAME`"
        )
    if problems:
        names = ", ".join(sorted({f"{bundle.name} version {bundle.version}" for bundle in bundles}))
        raise PublishingRefusedError(f"{names} cannot run yet: {'; '.join(problems)}")


def _unregistered(registry: SchemaRegistry, bundle: Bundle, definition: Definition, settings: Settings) -> list[str]:
    """What says that schemas are not registered: each under its record's name, since that is where writers look.

    Who sends the start record may have registered it under its topic's name: sagakit only reads it, by the id it bears.
    """
    elsewhere: dict[str, str] = {}
    if definition.trigger_topic is not None and definition.start not in _written(definition):
        elsewhere[definition.start] = f"{settings.topics.service_topic(definition.trigger_topic)}-value"
    missing = [
        name
        for name, text in bundle.schemas.items()
        if not any(_is_registered(registry, subject, text) for subject in (name, elsewhere.get(name)) if subject)
    ]
    if not missing:
        return []
    return [f"the schema of {', '.join(missing)} is not registered as it is here; run `sagakit schemas register`"]


def _is_registered(registry: SchemaRegistry, subject: str, text: str) -> bool:
    try:
        registry.schema_id(subject, text)
    except UnknownSchemaError:
        return False
    return True


def _written(definition: Definition) -> set[str]:
    """The records that sagakit itself writes for a definition."""
    tasks = definition.tasks.values()
    commands = {command.type for task in tasks for command in (task.command, task.compensate) if command is not None}
    return commands | {end.type for end in (definition.completed, definition.compensated) if end is not None}


def _services(definition: Definition) -> set[str]:
    commands = [task.command for task in definition.tasks.values()]
    commands += [task.compensate for task in definition.tasks.values() if task.compensate is not None]
    return {command.service for command in commands}


def _service_topics(definition: Definition) -> set[str]:
    """The topics, without the prefix, that a definition reads and writes."""
    topics = {f"{service}.commands" for service in _services(definition)}
    topics |= {end.topic for end in (definition.completed, definition.compensated) if end is not None}
    return topics if definition.trigger_topic is None else topics | {definition.trigger_topic}


def _record(settings: Settings, own: OwnRecords, bundle: Bundle, by: str, at_ms: int) -> Outgoing:
    definition = compile_bundle(bundle.canonical, bundle.schemas)
    trigger = definition.trigger_topic
    firsts = {} if trigger is None else _ends(settings, settings.topics.service_topic(trigger))
    with connect_reader(settings) as reader:
        counts = {name: reader.partitions(settings.topics.commands(name)) for name in sorted(_services(definition))}
    fields: dict[str, Any] = {
        "name": bundle.name,
        "version": bundle.version,
        "canonical": bundle.canonical,
        "hash": bundle.hash,
        "source": bundle.source,
        "schemas": dict(bundle.schemas),
        "first_offsets": [
            {"topic": one.topic, "partition": one.partition, "offset": offset} for one, offset in firsts.items()
        ],
        "command_partitions": counts,
        "published_at_ms": at_ms,
        "published_by": by,
    }
    key = f"{bundle.name}/{bundle.version}".encode()
    return Outgoing(settings.topics.definitions, 0, key, own.encode("PublishedDefinition", fields), ())


def _ends(settings: Settings, topic: str) -> dict[TopicPartition, int]:
    offsets = Offsets(client_properties(settings))
    with connect_reader(settings) as reader:
        partitions = [TopicPartition(topic, number) for number in range(reader.partitions(topic))]
    return offsets.ends(partitions)


def _definition_of(fields: Mapping[str, Any]) -> PublishedDefinition:
    firsts = {TopicPartition(one["topic"], one["partition"]): one["offset"] for one in fields["first_offsets"]}
    return PublishedDefinition(**{**fields, "first_offsets": firsts})


def _version_of(known: PublishedDefinition) -> PublishedVersion:
    return PublishedVersion(
        name=known.name,
        version=known.version,
        canonical=known.canonical,
        hash=known.hash,
        source=known.source,
    )
