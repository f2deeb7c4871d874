"""The published definitions, as this process knows them, compiled once."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from sagakit.core.definition import Definition
from sagakit.core.turn import ENGINE_LEVEL
from sagakit.orchestrator.blocked import PartitionBlockedError
from sagakit.ports.log import DefinitionLog, LogUnavailableError, Record, TopicPartition

_log = structlog.get_logger("sagakit.orchestrator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published version: the compiled definition, the schemas of its records, and where its triggers begin.

    `triggers_from` holds, for each partition of the trigger topic (full name), the first offset that can start a saga
    of this version; a partition that is not named begins at 0, since it did not exist when the version was published.
    """

    definition: Definition
    schemas: Mapping[str, str]
    triggers_from: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """What holds for the whole namespace: how many partitions it was made with, and which engine level it may write."""

    partitions: int
    engine_level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A record of the definitions topic that this process cannot use, and why."""

    key: str
    reason: str


DecodeDefinition: TypeAlias = Callable[[Record], Published | Namespace | Unusable | None]
"""Reads one record of the definitions topic; None for a tombstone."""


class Catalog:
    """Every version of every definition, read from the definitions topic to its end."""

    def __init__(self, log: DefinitionLog, decode: DecodeDefinition, topic_name: Callable[[str], str]) -> None:
        self._log = log
        self._decode = decode
        self._topic_name = topic_name
        self._versions: dict[str, dict[int, Published]] = {}
        self._by_trigger: dict[str, list[Published]] = {}
        self._untaken: deque[Record] = deque()
        self.namespace: Namespace | None = None

    def refresh(self) -> bool:
        """Read what was published since the last call; whether something new came.

        Raises:
            PartitionBlockedError: the topic's end could not be reached, or a record not be read for want of the
                registry: what depends on it has to wait, and the same records are taken next time.
        """
        untaken = self._untaken
        try:
            untaken.extend(self._log.read_new())
        except LogUnavailableError as error:
            raise PartitionBlockedError(f"the definitions cannot be read: {error}", transient=True) from error
        new = bool(untaken)
        while untaken:
            self._take(untaken[0])
            untaken.popleft()
        return new

    def _take(self, record: Record) -> None:
        found = self._decode(record)
        if isinstance(found, Namespace):
            self.namespace = found
            if found.engine_level > ENGINE_LEVEL:
                _log.error(
                    "the namespace is at a higher engine level than this release can run; deploy the newer release",
                    namespace_level=found.engine_level,
                    release_level=ENGINE_LEVEL,
                )
        elif isinstance(found, Unusable):
            _log.error(
                "a published definition cannot be used; publish a mended version", key=found.key, reason=found.reason
            )
        elif found is not None:
            definition = found.definition
            self._versions.setdefault(definition.name, {})[definition.version] = found
            self._index_triggers()
            _log.info("definition known", definition=definition.name, version=definition.version)

    def _index_triggers(self) -> None:
        self._by_trigger = {}
        for versions in self._versions.values():
            for published in versions.values():
                topic = published.definition.trigger_topic
                if topic is not None:
                    self._by_trigger.setdefault(self._topic_name(topic), []).append(published)

    def version(self, name: str, version: int) -> Published:
        """The version that a live saga runs.

        Raises:
            PartitionBlockedError: it is not known here, even after reading the topic again.
        """
        found = self._versions.get(name, {}).get(version)
        if found is None:
            self.refresh()
            found = self._versions.get(name, {}).get(version)
        if found is None:
            raise PartitionBlockedError(
                f"a saga runs version {version} of {name!r}, which is not published (any more); publish it again",
                transient=False,
            )
        return found

    def latest(self, name: str, start: str | None = None) -> Published | None:
        """The version that a new saga runs: the newest that starts with the record type `start`, or at all if None.

        None if the definition is not published, or no version of it starts so.
        """
        versions = self._versions.get(name, {})
        fitting = (number for number, one in versions.items() if start is None or one.definition.start == start)
        newest = max(fitting, default=None)
        return None if newest is None else versions[newest]

    def trigger_topics(self) -> frozenset[str]:
        """The full names of the topics whose records start sagas."""
        return frozenset(self._by_trigger)

    def first_trigger_offset(self, partition: TopicPartition) -> int:
        """Where a trigger partition without a committed offset begins: the earliest that any version asks for."""
        return min((p.triggers_from.get(partition, 0) for p in self._by_trigger.get(partition.topic, ())), default=0)

    def triggered(self, partition: TopicPartition, offset: int) -> Iterator[Published]:
        """For each definition, its newest version that is valid for the record at `offset` of a trigger partition."""
        newest: dict[str, Published] = {}
        for published in self._by_trigger.get(partition.topic, ()):
            definition = published.definition
            if published.triggers_from.get(partition, 0) > offset:
                continue
            known = newest.get(definition.name)
            if known is None or known.definition.version < definition.version:
                newest[definition.name] = published
        return iter(newest.values())
