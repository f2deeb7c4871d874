"""Raising a namespace's engine level, when everybody who is alive can run the next one.

Until then every release that runs beside the newest can read all that is written, and rolling back is a plain redeploy.
What an instance can run stands in its client id, which the group's coordinator tells of each member.
"""

import re
from dataclasses import asdict, dataclass, replace
from typing import Final

from confluent_kafka import ConsumerGroupState, KafkaException

from sagakit.adapters.client_properties import make_admin
from sagakit.adapters.kafka_publisher import KafkaPublisher
from sagakit.adapters.kafka_records import error_of
from sagakit.app.connect import client_properties, connect_registry
from sagakit.app.published import NAMESPACE_KEY, NamespaceRecord, publisher_id, read_catalogue
from sagakit.app.settings import Settings
from sagakit.contracts.own import OwnRecords
from sagakit.core.turn import ENGINE_LEVEL
from sagakit.ports.log import LogUnavailableError, Outgoing

_ASK_TIMEOUT_S: Final = 10.0
_CLIENT_ID: Final = re.compile(r"sagakit\.(?P<instance>.+)\.level-(?P<level>\d+)")
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]")
"""What stands in no client id, since brokers make names of metrics of it."""


class UpgradeRefusedError(Exception):
    """The engine level cannot be raised now; the message names who stands in the way, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A live member of the orchestrators' group, and the highest engine level that it runs; None if it does not say."""

    name: str
    host: str
    level: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeStatus:
    """Where a namespace stands, and who is alive. `settled`: the group is not just changing its members."""

    namespace: NamespaceRecord
    release_level: int
    instances: tuple[Instance, ...]
    settled: bool

    def refusal(self, level: int) -> str | None:
        """Why the level cannot be raised to `level` now; None if it can."""
        if level < self.namespace.engine_level:
            return f"the namespace is at engine level {self.namespace.engine_level} already, and never goes back"
        if level > self.release_level:
            return (
                f"this release runs up to engine level {self.release_level}; use the release that brings level {level}"
            )
        if not self.settled:
            return "the orchestrators are just changing who is in their group; ask again when they are at rest"
        behind = [one for one in self.instances if one.level is None or one.level < level]
        if behind:
            named = ", ".join(f"{one.name} ({_shown(one.level)}, at {one.host})" for one in behind)
            return f"not every live instance runs engine level {level}: {named}; deploy this release there first"
        return None


def instance_client_id(instance: str) -> str:
    """The client id of an orchestrator's group member: its instance, and the level that this release runs."""
    return f"sagakit.{_UNFIT.sub('_', instance)}.level-{ENGINE_LEVEL}"


def upgrade_status(settings: Settings) -> UpgradeStatus:
    """Ask the definitions topic and the group's coordinator.

    Raises:
        UpgradeRefusedError: there is no such namespace.
        LogUnavailableError, RegistryUnavailableError: a server does not answer.
    """
    namespace = read_catalogue(settings).namespace
    if namespace is None:
        raise UpgradeRefusedError(f"the namespace {settings.namespace} has not been set up; run `sagakit topics apply`")
    group = settings.topics.orchestrator_group
    try:
        admin = make_admin(client_properties(settings).admin())  # held: without it nothing would ever be answered
        described = admin.describe_consumer_groups([group], request_timeout=_ASK_TIMEOUT_S)[group].result()
    except KafkaException as exception:
        raise LogUnavailableError(f"the group {group} cannot be described: {error_of(exception).str()}") from exception
    instances = [_instance(str(member.client_id), str(member.host)) for member in described.members]
    return UpgradeStatus(
        namespace=namespace,
        release_level=ENGINE_LEVEL,
        instances=tuple(sorted(instances, key=lambda one: one.name)),
        settled=described.state in (ConsumerGroupState.STABLE, ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD),
    )


def finalize(settings: Settings, status: UpgradeStatus, level: int, *, by: str, because: str, at_ms: int) -> None:
    """Raise the namespace's engine level; from then on runs begin at it, and older releases refuse to run here.

    Raises:
        UpgradeRefusedError: as `UpgradeStatus.refusal` says, or somebody else has changed the namespace meanwhile.
        LogUnavailableError, RegistryUnavailableError: a server does not answer.
    """
    refusal = status.refusal(level)
    if refusal is not None:
        raise UpgradeRefusedError(refusal)
    raised = replace(status.namespace, engine_level=level, raised_at_ms=at_ms, raised_by=by, raised_because=because)
    with connect_registry(settings) as registry:
        value = OwnRecords(registry).encode("NamespaceRecord", asdict(raised))
    with KafkaPublisher(client_properties(settings), publisher_id(settings)) as publisher:
        # Whoever else publishes is fenced by now: what is read here cannot change before it is written.
        if read_catalogue(settings).namespace != status.namespace:
            raise UpgradeRefusedError("somebody else has just changed the namespace; look at it again")
        publisher.write([Outgoing(settings.topics.definitions, 0, NAMESPACE_KEY.encode(), value, ())])


def _instance(client_id: str, host: str) -> Instance:
    found = _CLIENT_ID.fullmatch(client_id)
    if found is None:
        return Instance(name=client_id, host=host, level=None)
    return Instance(name=found["instance"], host=host, level=int(found["level"]))


def _shown(level: int | None) -> str:
    return "which does not say what it runs" if level is None else f"up to {level}"
