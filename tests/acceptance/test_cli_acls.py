"""Over TLS and SCRAM, with exactly the rights that `sagakit doctor --acls` names, everyone can do their work."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
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

from sagakit.adapters.purge import Purge
from sagakit.app import inspection
from sagakit.app.connect import client_properties, connect
from sagakit.app.doctor.acls import Acl, Principals, acls
from sagakit.app.provisioning import ServiceTopics
from sagakit.app.settings import Settings
from sagakit.cli import exits
from sagakit.orchestrator.clock import wall_clock_ms
from sagakit.testing.fixtures import StartServer
from sagakit.testing.kafka import KafkaCluster
from sagakit.testing.registry import RealRegistry
from tests.acceptance.test_cli import ORDERS, PLACE_ORDER, ROOT, Desk
from tests.waiting import until

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
    by_hand, by_event = (json.loads(line) for line in ORDERS[:2])
    for order in (by_hand, by_event):
        order["items"][0]["quantity"] = 1_000_000_000  # the stock cannot serve it: the saga ends at its first step
    with (
        secured.desk("orchestrator").start("orchestrator", "orchestrator", "--instance", "one") as orchestrator,
        secured.desk("inventory").start("inventory", "service", "services.inventory.app:app") as inventory,
    ):
        with connect(secured.settings("client")) as client:
            payload = client.payload("shop.orders.OrderPlaced", by_hand)
            saga_id = str(client.start("place-order", by_hand["order_id"], payload).saga_id)
            client.publish_event("orders.events", by_event["order_id"], "shop.orders.OrderPlaced", by_event)
            event_started = client.saga_id("place-order", by_event["order_id"])
        settings = secured.settings("operator")

        def have_ended() -> bool:
            assert inventory.is_running, inventory.log_tail()
            found = [inspection.find(settings, one, lambda _done, _of: None) for one in (saga_id, event_started)]
            return {inspection.state_word(one.state) for one in found} == {"compensated"}

        orchestrator.wait_until(have_ended, timeout_s=90, what="done with both sagas")
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
    topics = settings.topics
    for user, group, topic in (
        ("orchestrator", topics.orchestrator_group, topics.inbox),
        ("inventory", topics.service_group("inventory"), topics.commands("inventory")),
    ):
        assert purged(secured.settings(user), group, topic), f"{user} purges what it has consumed of {topic}"
    # A denial is logged before it is answered, so this one closes the list of all that came before it.
    assert secured.desk("nobody").run("parked").code == exits.REFUSED
    until(lambda: any("User:nobody " in line for line in denied(cluster)), timeout_s=30, what="the denial in the log")
    tried = [line for line in denied(cluster) if "User:nobody " not in line]
    assert tried == [], "nobody with rights even tried what was not allowed"


def purged(settings: Settings, group: str, topic: str) -> bool:
    """Whether what the group has consumed of the topic is deleted, by a user's own purge, once it is two days old."""
    purge = Purge(client_properties(settings), group)
    try:
        return bool(purge.run([topic], wall_clock_ms() + 2 * 24 * 60 * 60 * 1_000))
    finally:
        purge.close()


SAGA = ("--definition", "place-order", "--key", "o-1")
WITHOUT_RIGHTS = {
    "status": SAGA,
    "history": SAGA,
    "parked": (),
    "start": ("place-order", "o-1", "--payload", "-"),
    "cancel": (*SAGA, "--reason", "too late"),
    "retry": (*SAGA, "--reason", "again"),
    "skip": (*SAGA, "--reason", "by hand"),
    "definitions": ("list",),
    "topics": ("check",),
}


def test_who_has_no_rights_is_told_so_in_one_line(secured: Secured, tmp_path: Path) -> None:
    order = tmp_path / "order.json"
    order.write_text(ORDERS[0], encoding="utf-8")
    nobody = secured.desk("nobody")
    commands = [(name, *(str(order) if one == "-" else one for one in more)) for name, more in WITHOUT_RIGHTS.items()]
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(commands, pool.map(lambda command: nobody.run(*command), commands), strict=True))
        examined = nobody.run("doctor")
    for command, result in results.items():
        assert (result.code, result.out) == (exits.REFUSED, ""), (command, result)
        assert "`sagakit doctor --acls` prints" in result.error, command
    assert (examined.code, examined.err) == (exits.NO, ""), "the doctor answers: promises that it could not try out"
    assert re.search(r"Give the user who runs the doctor\s+rights", examined.out)


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"sasl.password": "wrong"}, "refuses the credentials; mend sasl.username, sasl.password"),
        ({"ssl.ca.location": "probe"}, "do not come to terms over TLS; mend the ssl.* properties"),
    ],
)
def test_who_is_not_let_in_is_told_what_to_mend(
    cluster: KafkaCluster, registry: RealRegistry, tmp_path: Path, properties: dict[str, str], says: str
) -> None:
    """Trying again would not help; and what is wrong stands in no reply of the broker, which simply hangs up."""
    wrong = Secured(cluster, registry, tmp_path).desk("nobody")
    given = {**json.loads(wrong.environment["SAGAKIT_KAFKA"]), **properties}
    wrong.environment["SAGAKIT_KAFKA"] = json.dumps(given)
    commands = [("definitions", "list"), ("status", *SAGA), ("doctor",)]
    with ThreadPoolExecutor(3) as pool:  # each waits ten seconds for the broker
        for command, result in zip(commands, pool.map(lambda one: wrong.run(*one), commands), strict=True):
            assert (result.code, result.out) == (exits.REFUSED, ""), (command, result)
            assert says in result.error
            assert USERS["nobody"] not in result.error
    with wrong.start("orchestrator", "orchestrator") as process:  # it waits: it may be let in at any moment
        process.wait_for_line(rf"waiting for Kafka.*{re.escape(says)}", timeout_s=60)
        assert process.terminate(timeout_s=30) == exits.DONE
