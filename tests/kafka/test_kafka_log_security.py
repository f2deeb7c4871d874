"""The log over TLS and SASL, with the rights that an orchestrator needs and no others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from sagakit.adapters.client_properties import ClientProperties
from sagakit.adapters.kafka_definitions import KafkaDefinitionLog
from sagakit.adapters.kafka_log import KafkaLog
from sagakit.adapters.kafka_records import TRANSACTIONAL_ID_HEADER
from sagakit.ports.log import Committed, LogUnavailableError, TopicPartition
from sagakit.testing.fixtures import start_or_skip
from sagakit.testing.kafka import KafkaCluster
from tests.contract.worlds import PARTITIONS, Driver, KafkaWorld, values, work_of

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

RIGHTS = (
    (ResourceType.TOPIC, AclOperation.READ),
    (ResourceType.TOPIC, AclOperation.WRITE),
    (ResourceType.GROUP, AclOperation.READ),
    (ResourceType.TRANSACTIONAL_ID, AclOperation.WRITE),
)
"""READ and WRITE imply DESCRIBE. A prefix of transactional ids, since an instance ends what others left open."""


@pytest.fixture(scope="module")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """A broker that denies what is not granted. Rights name a prefix, so tests with one of their own keep apart."""
    logs = tmp_path_factory.mktemp("secured")
    described = KafkaCluster(1, security="tls+scram", users={"orchestrator": "a password"}, log_directory=logs)
    started = start_or_skip(described, "Kafka over TLS", pytestconfig)
    yield started
    started.stop()


def grant(world: KafkaWorld, user: str) -> None:
    bindings = [
        AclBinding(
            kind, world.prefix, ResourcePatternType.PREFIXED, f"User:{user}", "*", right, AclPermissionType.ALLOW
        )
        for kind, right in RIGHTS
    ]
    for granted in world.admin.create_acls(bindings).values():
        granted.result(timeout=30)


def withdraw(world: KafkaWorld, user: str, *kinds: ResourceType) -> None:
    filters = [
        AclBindingFilter(
            kind,
            world.prefix,
            ResourcePatternType.PREFIXED,
            f"User:{user}",
            "*",
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for kind in kinds
    ]
    for gone in world.admin.delete_acls(filters).values():
        assert gone.result(timeout=30)


def opened(world: KafkaWorld) -> KafkaLog:
    """A log with the rights that it needs: a broker takes a moment to know of them."""
    grant(world, "orchestrator")
    give_up_at = time.monotonic() + 30
    while True:
        try:
            return world.open()
        except LogUnavailableError:
            assert time.monotonic() < give_up_at


def until_refused(driver: Driver) -> LogUnavailableError:
    """Poll until it is refused, and go on for as long as a client that gives up would need for it."""
    with pytest.raises(LogUnavailableError) as refused:
        driver.until(lambda: False)
    for _ in range(20):
        with suppress(LogUnavailableError):
            driver.turn()
    return refused.value


def until(driver: Driver, condition: Callable[[], object]) -> None:
    """Poll until `condition` holds, whatever is still refused."""
    give_up_at = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < give_up_at, driver.changes
        with suppress(LogUnavailableError):
            driver.turn()


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((ResourceType.GROUP,), id="group"),
        pytest.param((ResourceType.TOPIC,), id="topics"),
        pytest.param((ResourceType.TRANSACTIONAL_ID,), id="transactional id"),
        pytest.param((ResourceType.GROUP, ResourceType.TOPIC, ResourceType.TRANSACTIONAL_ID), id="all"),
    ],
)
def test_rights_that_are_withdrawn_for_a_while_end_nothing(
    cluster: KafkaCluster, topic_prefix: str, kinds: tuple[ResourceType, ...]
) -> None:
    world = KafkaWorld(cluster.client_properties(), topic_prefix)
    world.properties = ClientProperties(cluster.client_properties("orchestrator"))
    driver = Driver(opened(world))
    partitions = [TopicPartition(world.inbox, number) for number in range(PARTITIONS)]
    driver.log.subscribe([world.inbox])
    until(driver, lambda: set(partitions) <= driver.restored.keys())
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    assert driver.log.commit(work_of(world, driver.take())) == Committed()

    withdraw(world, "orchestrator", *kinds)
    world.publish(world.inbox, 0, b"2")
    if kinds == (ResourceType.TRANSACTIONAL_ID,):
        until(driver, lambda: driver.records)
        assert not isinstance(driver.log.commit(work_of(world, driver.take())), Committed)
        for partition in sorted(driver.owned):
            driver.restore(partition)
    else:
        driver.restore(partitions[0])
    refused = until_refused(driver)
    assert "uthoriz" in str(refused)
    assert "doctor" in str(refused) or "ACLs" in str(refused)
    assert not refused.fatal

    grant(world, "orchestrator")
    until(driver, lambda: set(partitions) <= driver.restored.keys() and driver.records)
    while driver.log.commit(work_of(world, driver.take())) != Committed():  # it finds that it was refused meanwhile
        for partition in sorted(driver.owned):
            driver.restore(partition)
        until(driver, lambda: set(partitions) <= driver.restored.keys() and driver.records)
    world.publish(world.inbox, 0, b"3")
    until(driver, lambda: driver.records)
    assert driver.log.commit(work_of(world, driver.take())) == Committed()
    assert values(world.visible(world.out, 0)) == [b"1", b"2", b"3"]
    world.close()


def test_an_orchestrators_rights_are_enough_and_without_them_it_says_what_is_missing(
    cluster: KafkaCluster, topic_prefix: str
) -> None:
    world = KafkaWorld(cluster.client_properties(), topic_prefix)
    world.properties = ClientProperties(cluster.client_properties("orchestrator"))
    with pytest.raises(LogUnavailableError, match="transactional id") as refused:
        world.open()
    assert refused.value.fatal

    partitions = [TopicPartition(world.inbox, number) for number in range(PARTITIONS)]
    driver = Driver(opened(world))
    driver.log.subscribe([world.inbox])
    driver.until_restored(*partitions)
    world.publish(world.inbox, 0, b"1")
    driver.until(lambda: driver.records)
    assert driver.log.commit(work_of(world, driver.take())) == Committed()
    driver.until(lambda: driver.log.reached_end(partitions).keys() == set(partitions))
    driver.log.close(10)

    dead_id = f"{world.prefix}dead"
    dead = Producer({**world.plain, "transactional.id": dead_id, "transaction.timeout.ms": 300_000, "linger.ms": 0})
    dead.init_transactions(30)
    dead.begin_transaction()
    dead.produce(world.state, b"never", b"saga", 0, headers=[(TRANSACTIONAL_ID_HEADER, dead_id.encode())])
    assert dead.flush(30) == 0
    heir = Driver(world.open("heir"))
    heir.log.subscribe([world.inbox])
    heir.until_restored(*partitions)
    assert values(heir.state[partitions[0]]) == [b"1"]

    definitions = KafkaDefinitionLog(world.properties, world.trigger)
    world.publish(world.trigger, 0, b"definition")
    assert values(definitions.read_new()) == [b"definition"]
    definitions.close()
    world.close()
