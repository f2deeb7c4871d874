"""The topics that sagakit needs, as a plan; and making them, comparing them, and printing the commands for both.

Why each setting is there stands beside it. Topics are never made by auto-creation, which makes a one-partition `delete`
topic that forgets after a week.
"""

import shlex
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from sagakit.adapters.client_properties import ClientProperties, make_admin
from sagakit.adapters.kafka_records import AUTHORIZATION, GRANT, error_of
from sagakit.contracts.topics import Topics

_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.05

_DAY_MS: Final = 24 * 60 * 60 * 1000
_FOREVER: Final = "-1"

MAX_MESSAGE_BYTES: Final = 1_048_588
"""Kafka's default limit of one batch; a topic may allow more, but less would refuse batches of good records."""

_INBOX: Final = {
    "cleanup.policy": "delete",
    # Never by time: what is not consumed yet must not go while the consumer is down. Purged below committed offsets.
    "retention.ms": _FOREVER,
    "retention.bytes": _FOREVER,
}
_LOG_APPEND_TIME: Final = {
    # Partition time is the broker's: publishers' clocks are not trusted to say when a timer may fire.
    "message.timestamp.type": "LogAppendTime",
}
_STATE: Final = {
    "cleanup.policy": "compact",
    # A restore reads the log, and the active segment is never compacted: small segments that are rolled soon.
    "segment.bytes": str(64 * 1024 * 1024),
    "segment.ms": str(10 * 60 * 1000),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(10 * 60 * 1000),
    "delete.retention.ms": str(_DAY_MS),
}
_BACKLOG: Final = {
    "cleanup.policy": "compact",
    # Keys are unique until the archiver writes tombstones: cleaning rarely, and in large segments, copies least.
    "min.cleanable.dirty.ratio": "0.9",
    "segment.bytes": str(1024 * 1024 * 1024),
}
_DEFINITIONS: Final = {"cleanup.policy": "compact"}
_DELETE: Final = {"cleanup.policy": "delete"}


_AT_LEAST: Final = frozenset({"max.message.bytes", "min.insync.replicas"})
"""More than the plan says does no harm here."""

_TUNABLE: Final = frozenset(
    {
        "segment.bytes",
        "segment.ms",
        "min.cleanable.dirty.ratio",
        "max.compaction.lag.ms",
        "delete.retention.ms",
        "unclean.leader.election.enable",
        "min.insync.replicas",
        "retention.bytes",
    }
)
"""Settings that `apply` writes and `check` reports, but over which no process refuses to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTopic:
    """One topic of the plan.

    Attributes:
        partitions: None where any number is right; `apply` then takes `partitions_if_new`.
        replication: copies of each partition, when it is made.
        config: topic settings by Kafka's names.
        why: what the topic is for, for people.
    """

    name: str
    partitions: int | None
    partitions_if_new: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTopic:
    """A topic as the broker has it."""

    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where a topic is not as the plan says: `setting` is `topic` when there is none, `partitions`, or a config name.

    `fatal` differences keep every process from starting; the others cost speed or safety and are reported.
    """

    topic: str
    setting: str
    wanted: str
    found: str
    fatal: bool

    def __str__(self) -> str:
        if self.setting == "topic":
            return f"{self.topic} does not exist; `sagakit topics apply` makes it"
        return f"{self.topic}: {self.setting} is {self.found} and must be {self.wanted}"


class TopicsDifferError(Exception):
    """Topics are missing or not as they must be; the message names each and says what to do."""

    def __init__(self, differences: Sequence[Difference]) -> None:
        super().__init__(
            "; ".join(map(str, differences))
            + ". `sagakit topics check` compares all, `sagakit topics apply` makes what "
            "is missing, `--print` gives the commands."
        )
        self.differences = tuple(differences)


class TopicsUnavailableError(Exception):
    """The broker does not answer, or refuses to tell or to make topics; the message says which right is missing."""


class TopicsUnsettledError(TopicsUnavailableError):
    """One broker names a topic that another does not know yet. It passes within moments."""


class TopicsForbiddenError(TopicsUnavailableError):
    """The broker answers, and this user may not see or make the topics."""


def plan(
    topics: Topics,
    *,
    partitions: int,
    replication: int,
    services: Collection[str] = (),
    service_partitions: int | None = None,
) -> tuple[WantedTopic, ...]:
    """The topics of a namespace and of the services that its definitions name.

    `partitions` is that of inbox, backlog and state, which are co-partitioned, and fixed for the namespace's life.
    Topics of services may have any number of partitions; new ones get `service_partitions` (default: `partitions`).
    """
    common = {
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": str(max(1, replication - 1)),
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }

    def wanted(name: str, count: int | None, config: Mapping[str, str], why: str) -> WantedTopic:
        return WantedTopic(
            name=name,
            partitions=count,
            partitions_if_new=count or service_partitions or partitions,
            replication=replication,
            config={**config, **common},
            why=why,
        )

    saga = [
        wanted(topics.inbox, partitions, {**_INBOX, **_LOG_APPEND_TIME}, "what the orchestrator consumes"),
        wanted(topics.backlog, partitions, _BACKLOG, "every transition"),
        wanted(topics.state, partitions, _STATE, "live sagas"),
        wanted(topics.results, None, _DELETE, "how sagas ended, for those who asked"),
        wanted(topics.definitions, 1, _DEFINITIONS, "published definitions"),
        wanted(topics.dead_letters, None, {**_DELETE, "retention.ms": _FOREVER}, "what can never be read"),
    ]
    for service in sorted(set(services)):
        saga.append(wanted(topics.commands(service), None, _INBOX, f"commands of {service}"))
        saga.append(wanted(topics.events(service), None, _DELETE, f"domain events of {service}"))
    return tuple(saga)


def compare(wanted: Iterable[WantedTopic], found: Mapping[str, FoundTopic]) -> tuple[Difference, ...]:
    """Where the topics found are not as the plan says."""
    differences: list[Difference] = []
    for topic in wanted:
        there = found.get(topic.name)
        if there is None:
            differences.append(
                Difference(topic=topic.name, setting="topic", wanted="there", found="missing", fatal=True)
            )
            continue
        if topic.partitions is not None and there.partitions != topic.partitions:
            differences.append(
                Difference(
                    topic=topic.name,
                    setting="partitions",
                    wanted=str(topic.partitions),
                    found=str(there.partitions),
                    fatal=True,
                )
            )
        for name, value in topic.config.items():
            has = there.config.get(name, "")
            if not _satisfies(name, value, has):
                differences.append(
                    Difference(topic=topic.name, setting=name, wanted=value, found=has, fatal=name not in _TUNABLE)
                )
    return tuple(differences)


def commands(wanted: Sequence[WantedTopic], differences: Iterable[Difference], bootstrap: str) -> tuple[str, ...]:
    """The shell commands (Kafka's own tools) that make the plan true; partition counts cannot be changed by any."""
    by_name = {topic.name: topic for topic in wanted}
    server = f"--bootstrap-server {shlex.quote(bootstrap)}"
    lines: list[str] = []
    changed: dict[str, list[str]] = {}
    for one in differences:
        topic = by_name[one.topic]
        if one.setting == "topic":
            settings = "".join(f" --config {shlex.quote(f'{name}={value}')}" for name, value in topic.config.items())
            lines.append(
                f"kafka-topics.sh {server} --create --topic {shlex.quote(topic.name)} "
                f"--partitions {topic.partitions_if_new} --replication-factor {topic.replication}{settings}"
            )
        elif one.setting == "partitions":
            lines.append(f"# {one}: make a new namespace and let this one drain")
        else:
            changed.setdefault(one.topic, []).append(f"{one.setting}={one.wanted}")
    lines += [
        f"kafka-configs.sh {server} --alter --entity-type topics --entity-name {shlex.quote(name)} "
        f"--add-config {shlex.quote(','.join(settings))}"
        for name, settings in changed.items()
    ]
    return tuple(lines)


class TopicAdmin:
    """Makes and reads topics."""

    def __init__(self, properties: ClientProperties) -> None:
        self._admin: AdminClient = make_admin(properties.admin())

    def find(self, names: Iterable[str]) -> dict[str, FoundTopic]:
        """Those of the topics that exist.

        Raises:
            TopicsUnsettledError: brokers differ on what there is: a topic was just made, or one of them just started.
            TopicsUnavailableError: the broker does not answer or refuses.
        """
        wanted = set(names)
        try:
            listed = self._admin.list_topics(timeout=_TIMEOUT_S).topics
            there = sorted(wanted & listed.keys())
            self._require_sight(sorted(wanted - listed.keys()))
            resources = [ConfigResource(ResourceType.TOPIC, name) for name in there]
            asked = self._admin.describe_configs(resources, request_timeout=_TIMEOUT_S) if resources else {}
            return {
                resource.name: FoundTopic(
                    partitions=len(listed[resource.name].partitions),
                    config={name: str(entry.value) for name, entry in future.result().items()},
                )
                for resource, future in asked.items()
            }
        except KafkaException as exception:
            if error_of(exception).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise TopicsUnsettledError(
                    "a broker has not heard of every topic yet; trying again helps"
                ) from exception
            raise _unavailable("the topics cannot be read", exception) from exception

    def _require_sight(self, missing: list[str]) -> None:
        """Of topics that it may not describe, a user sees as little as of those that do not exist."""
        asked = self._admin.describe_topics(TopicCollection(missing), request_timeout=_TIMEOUT_S) if missing else {}
        for name, future in asked.items():
            try:
                future.result()
            except KafkaException as exception:
                if error_of(exception).code() in AUTHORIZATION:
                    raise _unavailable(f"{name} cannot be seen", exception) from exception

    def create(self, wanted: Iterable[WantedTopic]) -> tuple[str, ...]:
        """Make topics; the names of those that somebody else had made meanwhile are left out.

        Raises:
            TopicsUnavailableError: the broker does not answer or refuses.
        """
        new = [NewTopic(one.name, one.partitions_if_new, one.replication, config=dict(one.config)) for one in wanted]
        made: list[str] = []
        asked = self._admin.create_topics(new, operation_timeout=_TIMEOUT_S) if new else {}
        for name, future in asked.items():
            try:
                future.result()
                made.append(name)
            except KafkaException as exception:
                if error_of(exception).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise _unavailable(f"{name} cannot be made", exception) from exception
        self.wait_for(asked.keys())
        return tuple(made)

    def wait_for(self, names: Collection[str]) -> None:
        """Wait until topics that were just made are known to the brokers, which learn of them a little later.

        Raises:
            TopicsUnavailableError: they are not after half a minute, or the broker does not answer.
        """
        give_up_at = time.monotonic() + _TIMEOUT_S
        while missing := set(names) - self._found_by_all(names):
            if time.monotonic() > give_up_at:
                raise TopicsUnavailableError(
                    f"{', '.join(sorted(missing))} did not appear within {_TIMEOUT_S:.0f} s: is the cluster well?"
                )
            time.sleep(_POLL_S)

    def _found_by_all(self, names: Collection[str]) -> set[str]:
        try:
            return set(self.find(names))
        except TopicsUnsettledError:
            return set()

    def check(self, wanted: Sequence[WantedTopic]) -> tuple[Difference, ...]:
        """Where the topics are not as the plan says.

        Raises:
            TopicsUnavailableError: the broker does not answer or refuses.
        """
        return compare(wanted, self.find(one.name for one in wanted))

    def apply(self, wanted: Sequence[WantedTopic]) -> tuple[tuple[str, ...], tuple[Difference, ...]]:
        """Make what is missing; gives what was made and what is different. Topics that exist are never changed.

        Raises:
            TopicsUnavailableError: the broker does not answer or refuses.
        """
        there = self.find(one.name for one in wanted)
        made = self.create(one for one in wanted if one.name not in there)
        return made, self.check(wanted)

    def require(self, wanted: Sequence[WantedTopic]) -> tuple[Difference, ...]:
        """The check at the start of every process; gives the differences that one can live with, to be logged.

        Raises:
            TopicsDifferError: topics are missing, or have another partition count, cleanup policy or retention.
            TopicsUnavailableError: the broker does not answer or refuses.
        """
        differences = self.check(wanted)
        if fatal := [one for one in differences if one.fatal]:
            raise TopicsDifferError(fatal)
        return differences


def _satisfies(name: str, wanted: str, found: str) -> bool:
    if name in _AT_LEAST:
        return found.isdecimal() and int(found) >= int(wanted)
    if name == "cleanup.policy":
        return set(found.split(",")) == set(wanted.split(","))
    return found == wanted


def _unavailable(what: str, exception: KafkaException) -> TopicsUnavailableError:
    error = error_of(exception)
    if error.code() in AUTHORIZATION:
        return TopicsForbiddenError(f"{what}: {error.str()} {GRANT}")
    return TopicsUnavailableError(
        f"{what}: {error.str()}. Check the address and the rights (DESCRIBE, DESCRIBE_CONFIGS, CREATE on the topics)."
    )
