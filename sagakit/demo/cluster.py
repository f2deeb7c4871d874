"""The stage of `sagakit demo --kafka`: a real Kafka and registry, and everyone who works in a process of their own.

Topics, schemas and definition get there by the code that stands behind `sagakit topics apply`, `schemas register` and
`definitions publish`.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from sagakit.adapters.client_properties import make_admin
from sagakit.app import provisioning
from sagakit.app.connect import client_properties, connect_registry, unreachable
from sagakit.app.published import PublishedDefinitions
from sagakit.app.settings import Settings
from sagakit.contracts import registration
from sagakit.contracts.registration import Standing
from sagakit.demo.processes import Kills, Troupe
from sagakit.demo.stage import ORDERS, DemoError, Stage, definition_bundle, readers, shop_schemas, shop_services
from sagakit.language.canonical import Bundle
from sagakit.orchestrator.clock import wall_clock_ms
from sagakit.testing import jars
from sagakit.testing.kafka import KafkaCluster
from sagakit.testing.registry import RealRegistry
from services.ledger import DIRECTORY_VARIABLE

PARTITIONS: Final = 8
ORCHESTRATORS: Final = 2

_READY_TIMEOUT_S: Final = 90.0
_LOOK_EVERY_S: Final = 0.1
_REQUEST_TIMEOUT_S: Final = 10.0

# On brokers of our own a dead member is noticed in two seconds instead of six, or a demo with kills would mostly wait.
BROKER: Final = {"group.min.session.timeout.ms": "1000"}
CLIENTS: Final = {"consumer.session.timeout.ms": "2500", "consumer.heartbeat.interval.ms": "500"}

Say = Callable[[str], None]
"""Tells those who wait what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where to play: on the cluster that `guest` names, or (None) on one of `brokers` brokers, started for this run."""

    guest: Settings | None = None
    brokers: int = 1


@contextmanager
def cluster_stage(cluster: Cluster, folder: Path, ledgers: Path, kills: int, seed: int, say: Say) -> Iterator[Stage]:
    """A real cluster with orchestrators and services at work; all that was started ends with the block.

    Raises:
        DemoError: somebody fails before the stage is ready.
        LogUnavailableError, RegistryUnavailableError: a cluster that exists does not answer.
        ServerError: Kafka or the registry cannot be had, or does not come up.
    """
    logs = folder / "logs"
    with ExitStack() as closings:
        if cluster.guest is not None:
            settings = closings.enter_context(_guest(cluster.guest))
        else:
            settings = closings.enter_context(_own_servers(cluster.brokers, logs, say))
        say("making topics, registering schemas, publishing the definition")
        provision(settings, [definition_bundle()])
        troupe = Troupe(
            {**child_environment(settings, folder), DIRECTORY_VARIABLE: str(ledgers)},
            logs,
            Kills(count=kills, seed=seed, log=folder / "kills.jsonl"),
        )
        closings.callback(troupe.dismiss)
        say("waiting for orchestrators and services")
        for number in range(1, ORCHESTRATORS + 1):
            troupe.start(f"orchestrator-{number}", ["orchestrator"])
        for name in shop_services():
            troupe.start(name, ["service", f"services.{name}.app:app"])
        stage = Stage(
            settings=settings,
            properties=client_properties(settings),
            registry=closings.enter_context(connect_registry(settings)),
            ledgers=ledgers,
            readers={**readers(settings.topics), **_orchestrators_read(settings)},
            supervisor=troupe,
        )
        wait_until_ready(stage)
        yield stage


@contextmanager
def _own_servers(brokers: int, logs: Path, say: Say) -> Iterator[Settings]:
    say("looking for Java, and for Kafka's jars (44 MB, fetched once)")
    jars.java()
    jars.kafka_jars()
    say("looking for the registry's jar (142 MB, fetched once)")
    jars.apicurio_jar()
    say("starting Kafka and the registry")
    kafka = KafkaCluster(brokers, log_directory=logs, properties=BROKER)
    registry = RealRegistry(log_directory=logs)
    with ExitStack() as closings:
        with ThreadPoolExecutor(max_workers=2) as pool:
            starting = [pool.submit(closings.enter_context, server) for server in (kafka, registry)]
        for one in starting:
            one.result()
        yield Settings(
            bootstrap=kafka.bootstrap,
            registry_url=registry.url,
            namespace="default",
            topic_prefix="",
            partitions=PARTITIONS,
            replication_factor=min(3, brokers),
            kafka=dict(CLIENTS),
            registry={},
        )


@contextmanager
def _guest(asked: Settings) -> Iterator[Settings]:
    """On a cluster that exists: everything under a prefix of this run's own, and the topics deleted at the end."""
    admin = make_admin(client_properties(asked).admin())
    with unreachable(asked):
        brokers = len(admin.list_topics(timeout=_REQUEST_TIMEOUT_S).brokers)
    settings = asked.model_copy(
        update={
            "namespace": "default",
            "topic_prefix": f"sagakit-demo-{uuid.uuid4().hex[:8]}.",
            "partitions": PARTITIONS,
            "replication_factor": min(3, brokers),
        }
    )
    try:
        yield settings
    finally:
        _delete_topics(admin, settings.topic_prefix)


def _delete_topics(admin: AdminClient, prefix: str) -> None:
    names = [name for name in admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics if name.startswith(prefix)]
    left = []
    for name, future in (admin.delete_topics(names) if names else {}).items():
        try:
            future.result()
        except KafkaException:
            left.append(name)
    if left:
        raise DemoError(f"these topics could not be deleted; delete them by hand: {', '.join(sorted(left))}")


def provision(settings: Settings, bundles: Sequence[Bundle], others: Collection[str] = ()) -> None:
    """Make the topics of the namespace and the shop, and of `others` (services), register schemas, publish `bundles`.

    Raises:
        DemoError: something else stands there already.
    """
    services = [
        provisioning.ServiceTopics(name=name, event_topics=service.event_topics)
        for name, (service, _) in shop_services().items()
    ]
    services += [provisioning.ServiceTopics(name=name, event_topics=(f"{name}.events",)) for name in others]
    now_ms = wall_clock_ms()
    applied = provisioning.apply(settings, provisioning.wanted_topics(settings, services), at_ms=now_ms)
    if fatal := [str(one) for one in applied.differences if one.fatal]:
        raise DemoError(f"topics are there already and not as they must be: {'; '.join(fatal)}")
    with connect_registry(settings) as registry:
        compared = registration.compare(shop_schemas(), registry)
        if broken := [one.subject for one in compared if one.standing is Standing.INCOMPATIBLE]:
            raise DemoError(
                f"the registry has other schemas than the shop's: {', '.join(broken)}; use another registry"
            )
        registration.register([one for one in compared if one.standing is not Standing.REGISTERED], registry)
    PublishedDefinitions(settings, wall_clock_ms).publish(bundles, "demo")


def child_environment(settings: Settings, folder: Path) -> Mapping[str, str]:
    """The settings for a child. All of them: what stands in the user's own environment is about another cluster."""
    config = folder / "sagakit.toml"
    config.write_text("# empty: everything is in the environment\n")
    return {
        "SAGAKIT_CONFIG": str(config),
        "SAGAKIT_BOOTSTRAP": settings.bootstrap,
        "SAGAKIT_REGISTRY_URL": settings.registry_url,
        "SAGAKIT_NAMESPACE": settings.namespace,
        "SAGAKIT_TOPIC_PREFIX": settings.topic_prefix,
        "SAGAKIT_PARTITIONS": str(settings.partitions),
        "SAGAKIT_REPLICATION_FACTOR": str(settings.replication_factor),
        "SAGAKIT_KAFKA": json.dumps(settings.kafka_properties),
        "SAGAKIT_REGISTRY": json.dumps(settings.registry_properties),
        "SAGAKIT_LOG_FORMAT": "console",
        "SAGAKIT_LOG_LEVEL": "info",
    }


def _orchestrators_read(settings: Settings) -> Mapping[str, frozenset[str]]:
    topics = settings.topics
    return {topics.orchestrator_group: frozenset({topics.inbox, topics.service_topic(ORDERS)})}


def wait_until_ready(stage: Stage) -> None:
    """Wait until every partition that a group reads has its reader.

    Raises:
        DemoError: one has none after a minute and a half, or somebody fails.
    """
    admin = make_admin(stage.properties.admin())
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while waiting := [group for group, topics in stage.readers.items() if not _has_all(admin, group, topics)]:
        stage.supervisor.look()
        if time.monotonic() > deadline:
            raise DemoError(f"nobody reads all partitions of {', '.join(waiting)} after {_READY_TIMEOUT_S} s")
        time.sleep(_LOOK_EVERY_S)


def _has_all(admin: AdminClient, group: str, topics: frozenset[str]) -> bool:
    try:
        listed = admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        described = admin.describe_consumer_groups([group], request_timeout=_REQUEST_TIMEOUT_S)[group].result()
    except KafkaException:  # its coordinator is not there yet: the wait has a deadline
        return False
    taken = {
        (one.topic, one.partition) for member in described.members for one in member.assignment.topic_partitions or ()
    }
    wanted = {(name, number) for name in topics for number in listed[name].partitions}
    return wanted <= taken
