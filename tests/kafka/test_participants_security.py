"""A participant whose rights are withdrawn for a while: it waits, says why, and goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from sagakit.testing.fixtures import start_or_skip
from sagakit.testing.kafka import KafkaCluster
from tests.kafka.test_participants import Shop, causation, payments, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

USER = "payments"
RIGHTS = (
    (ResourceType.TOPIC, AclOperation.READ),
    (ResourceType.TOPIC, AclOperation.WRITE),
    (ResourceType.GROUP, AclOperation.READ),
)


@pytest.fixture(scope="module")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """A broker that denies what is not granted. Rights name a prefix, so tests with one of their own keep apart."""
    logs = tmp_path_factory.mktemp("secured")
    described = KafkaCluster(1, security="tls+scram", users={USER: "a password"}, log_directory=logs)
    started = start_or_skip(described, "Kafka over TLS", pytestconfig)
    yield started
    started.stop()


def grant(shop: Shop) -> None:
    prefix = shop.topics.topic_prefix
    bindings = [
        AclBinding(kind, prefix, ResourcePatternType.PREFIXED, f"User:{USER}", "*", right, AclPermissionType.ALLOW)
        for kind, right in RIGHTS
    ]
    for granted in shop.admin.create_acls(bindings).values():
        granted.result(timeout=30)


def withdraw(shop: Shop, *kinds: ResourceType) -> None:
    prefix, pattern = shop.topics.topic_prefix, ResourcePatternType.PREFIXED
    filters = [
        AclBindingFilter(kind, prefix, pattern, f"User:{USER}", "*", AclOperation.ANY, AclPermissionType.ANY)
        for kind in kinds
    ]
    for gone in shop.admin.delete_acls(filters).values():
        assert gone.result(timeout=30)


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((ResourceType.GROUP,), id="group"),
        pytest.param((ResourceType.TOPIC,), id="topics"),
        pytest.param((ResourceType.GROUP, ResourceType.TOPIC), id="both"),
    ],
)
def test_rights_that_are_withdrawn_for_a_while_end_nothing(
    cluster: KafkaCluster, topic_prefix: str, kinds: tuple[ResourceType, ...]
) -> None:
    """Also before the start: a service that may not join yet waits for it."""
    shop = Shop(cluster, topic_prefix)
    seen: list[str] = []
    mine = {name: value for name, value in cluster.client_properties(USER).items() if name != "bootstrap.servers"}
    shop.charge(*range(20))
    with shop.running(payments(seen), properties=mine) as service:
        wait_until(lambda: service.runtime.unavailable is not None)
        grant(shop)
        shop.replies(20)

        withdraw(shop, *kinds)
        shop.charge(*range(20, 40))
        wait_until(lambda: "uthoriz" in str(service.runtime.unavailable))
        assert "doctor" in str(service.runtime.unavailable)
        grant(shop)
        replies = shop.replies(40)
        wait_until(lambda: shop.committed() == 40)
        wait_until(lambda: service.runtime.unavailable is None)
        assert service.error is None
    assert len({causation(reply) for reply in replies}) == 40
    assert len(set(seen)) == 40
