"""The published definitions, as this process knows them, compiled once."""

from collections import deque
from collections.abc import Callable, Iterator

import structlog

from sagakit.contracts.denials import Denials
from sagakit.contracts.errors import UnknownSchemaIdError
from sagakit.contracts.own import OwnRecords
from sagakit.core.turn import ENGINE_LEVEL, ENGINE_LEVELS
from sagakit.language.published import Namespace, Published, Unusable, decode_published
from sagakit.orchestrator.blocked import PartitionBlockedError
from sagakit.orchestrator.clock import Clock
from sagakit.ports.log import DefinitionLog, LogUnavailableError, Record, TopicPartition
from sagakit.ports.registry import RegistryUnavailableError

_log = structlog.get_logger("sagakit.orchestrator")


def refused_level(who: str, level: int) -> str:
    """What is said of an engine level that this release does not run."""
    own = ", ".join(map(str, ENGINE_LEVELS))
    return f"{who} is at engine level {level}, and this release runs level {own}; deploy a release that runs {level}"


class Catalog:
    """Every version of every definition, read from the definitions topic to its end."""

    def __init__(self, log: DefinitionLog, own: OwnRecords, topic_name: Callable[[str], str], clock: Clock) -> None:
        self._log = log
        self._own = own
        self._topic_name = topic_name
        self._clock = clock
        self._denials = Denials()
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
        try:
            found = decode_published(record, self._own)
        except RegistryUnavailableError as error:
            raise PartitionBlockedError(f"the registry does not answer: {error}", transient=True) from error
        except UnknownSchemaIdError as denied:
            if not self._denials.is_final(denied.schema_id, self._clock()):
                raise PartitionBlockedError(f"asking again: {denied.reason}", transient=True) from denied
            found = Unusable(key=(record.key or b"").decode(errors="replace"), reason=denied.reason)
        if isinstance(found, Namespace):
            self.namespace = found
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

    def level(self) -> int:
        """The engine level of runs that begin: the namespace's; this release's own where no namespace is known.

        Raises:
            PartitionBlockedError: this release does not run that level, and so decides nothing here.
        """
        if self.namespace is None:
            return ENGINE_LEVEL
        level = self.namespace.engine_level
        if level not in ENGINE_LEVELS:
            raise PartitionBlockedError(refused_level("the namespace", level), transient=False)
        return level

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
