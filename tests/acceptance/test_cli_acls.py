"""Over TLS and SCRAM, with exactly the rights that `sagakit doctor --acls` names, everyone can do their work."""

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from sagakit.app import inspection
from sagakit.app.connect import connect
from sagakit.app.doctor.acls import Acl, Principals, acls
from sagakit.app.provisioning import ServiceTopics
from sagakit.app.settings import Settings
from sagakit.cli import exits
from sagakit.testing.fixtures import StartServer
from sagakit.testing.kafka import KafkaCluster
from sagakit.testing.registry import RealRegistry
from tests.acceptance.test_cli import ORDERS, PLACE_ORDER, ROOT, Desk

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.registry,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

ROLES = ("setup", "orchestrator", "inventory", "client", "operator", "doctor", "nobody")
USERS = {name: f"secret-of-{name}" for name in ROLES}
PRINCIPALS = Principals(
    orchestrator="User:orchestrator",
    service="User:{service}",
    client="User:client",
    operator="User:operator",
    setup="User:setup",
    doctor="User:doctor",
)
SERVICES = [
    ServiceTopics(name="inventory", event_topics=("orders.events",)),
    *(ServiceTopics(name=name) for name in ("orders", "payments", "shipping")),
]


def binding(acl: Acl, operation: str) -> AclBinding:
    types = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.BROKER}
    operations = {one.name.replace("_", "").lower(): one for one in AclOperation}
    return AclBinding(
        types.get(acl.resource, ResourceType.TRANSACTIONAL_ID),
        acl.name,
        ResourcePatternType.PREFIXED if acl.pattern == "prefixed" else ResourcePatternType.LITERAL,
        acl.principal,
        "*",
        operations[operation.lower()],
        AclPermissionType.ALLOW,
    )


@pytest.fixture
def cluster(start_server: StartServer, tmp_path: Path) -> KafkaCluster:
    return start_server(KafkaCluster(1, log_directory=tmp_path / "kafka", security="tls+scram", users=USERS))


class Secured:
    """Desks of different users of one cluster."""

    def __init__(self, cluster: KafkaCluster, registry: RealRegistry, folder: Path) -> None:
        self._cluster = cluster
        self._registry = registry
        self._folder = folder
        (folder / "ledgers").mkdir()

    def kafka(self, user: str | None) -> dict[str, str]:
        properties = {name: str(value) for name, value in self._cluster.client_properties(user).items()}
        return {name: value for name, value in properties.items() if name != "bootstrap.servers"}

    def settings(self, user: str | None) -> Settings:
        own: dict[str, Any] = {
            "bootstrap": self._cluster.bootstrap,
            "registry_url": self._registry.url,
            "namespace": "secured",
            "partitions": 2,
            "replication_factor": 1,
            "kafka": self.kafka(user),
        }
        return Settings.load(**own)

    def desk(self, user: str | None) -> Desk:
        """The shell of a user; None is the administrator."""
        environment = {
            "SAGAKIT_BOOTSTRAP": self._cluster.bootstrap,
            "SAGAKIT_REGISTRY_URL": self._registry.url,
            "SAGAKIT_NAMESPACE": "secured",
            "SAGAKIT_PARTITIONS": "2",
            "SAGAKIT_REPLICATION_FACTOR": "1",
            "SAGAKIT_KAFKA": json.dumps(self.kafka(user)),
            "SHOP_DATA": str(self._folder / "ledgers"),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }
        return Desk(self._folder, environment)


@pytest.fixture
def secured(cluster: KafkaCluster, registry: RealRegistry, tmp_path: Path) -> Secured:
    secured = Secured(cluster, registry, tmp_path)
    topics = secured.settings(None).topics
    bindings = [
        binding(one, operation)
        for one in acls(topics, PRINCIPALS, services=SERVICES, triggers=["orders.events"])
        for operation in one.operations
    ]
    admin = AdminClient(cluster.client_properties())
    for future in admin.create_acls(bindings).values():
        future.result(timeout=30)
    services = ["--app", "services.inventory.app:app"]
    services += [word for name in ("orders", "payments", "shipping") for word in ("--service", name)]
    setup = secured.desk("setup")
    for command in (
        ("topics", "apply", *services),
        ("schemas", "register", str(ROOT / "schemas")),
        ("definitions", "publish", str(PLACE_ORDER), "--schemas", str(ROOT / "schemas")),
        ("topics", "check", *services),
    ):
        done = setup.run(*command)
        assert done.code == exits.DONE, (command, done)
    return secured


def denied(cluster: KafkaCluster) -> list[str]:
    """What somebody tried and was not allowed to."""
    return [line for line in cluster.process(1).output().splitlines() if "is Denied" in line]


def test_a_saga_runs_and_is_looked_up_with_the_least_rights(secured: Secured, cluster: KafkaCluster) -> None:
    operator = secured.desk("operator")
    order = json.loads(ORDERS[0])
    order["items"][0]["quantity"] = 1_000_000_000  # the stock cannot serve it: the saga ends at its first step
    with (
        secured.desk("orchestrator").start("orchestrator", "orchestrator", "--instance", "one") as orchestrator,
        secured.desk("inventory").start("inventory", "service", "services.inventory.app:app") as inventory,
    ):
        with connect(secured.settings("client")) as client:
            sent = client.start("place-order", order["order_id"], client.payload("shop.orders.OrderPlaced", order))
        saga_id = str(sent.saga_id)
        settings = secured.settings("operator")

        def has_ended() -> bool:
            assert inventory.is_running, inventory.log_tail()
            found = inspection.find(settings, saga_id, lambda _done, _of: None)
            return inspection.state_word(found.state) == "compensated"

        orchestrator.wait_until(has_ended, timeout_s=90, what="done with the saga")
        for process in (orchestrator, inventory):
            assert process.terminate(timeout_s=30) == exits.DONE
            assert "authorization" not in process.output().lower(), process.log_tail()
    told = operator.run("history", saga_id)
    assert told.code == exits.DONE, told.err
    assert "OUT_OF_STOCK" in told.out
    assert operator.run("cancel", saga_id, "--reason", "too late").code == exits.DONE
    examined = secured.desk("doctor").run("doctor", "--json")
    assert examined.code == exits.DONE, examined
    assert all("cannot be read" not in one["found"] for one in examined.json)
    assert denied(cluster) == [], "nobody even tried what was not allowed"


def test_who_has_no_rights_is_told_so_in_one_line(secured: Secured) -> None:
    nobody = secured.desk("nobody")
    for command in (("status", "-d", "place-order", "-k", "o-1"), ("definitions", "list"), ("topics", "check")):
        result = nobody.run(*command)
        assert result.code in (exits.NO, exits.UNREACHABLE, exits.REFUSED), (command, result)
        assert "Traceback" not in result.err
    wrong = secured.desk("nobody")
    wrong.environment["SAGAKIT_KAFKA"] = wrong.environment["SAGAKIT_KAFKA"].replace(USERS["nobody"], "wrong")
    refused = wrong.run("definitions", "list")
    assert refused.code == exits.UNREACHABLE
    assert USERS["nobody"] not in refused.err
