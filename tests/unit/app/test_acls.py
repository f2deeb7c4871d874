"""The rights that each part is told to need."""

import shlex

from sagakit.app.doctor.acls import Principals, acls
from sagakit.app.provisioning import ServiceTopics
from sagakit.contracts.topics import Topics

TOPICS = Topics(namespace="desk", topic_prefix="t.")
NOTIFICATIONS = ServiceTopics(name="notifications", event_topics=("orders.events",))


def allowed(principal: str) -> dict[tuple[str, str], set[str]]:
    found = acls(TOPICS, Principals(), services=[NOTIFICATIONS], triggers=["orders.events"])
    return {(one.resource, one.name): set(one.operations) for one in found if one.principal == principal}


def test_nobody_but_the_orchestrator_writes_state_and_backlog() -> None:
    for one in acls(TOPICS, Principals(), services=[NOTIFICATIONS], triggers=["orders.events"]):
        if one.name in (TOPICS.state, TOPICS.backlog) and "Write" in one.operations:
            assert one.principal == "User:sagakit-orchestrator"


def test_nobody_creates_or_alters_topics() -> None:
    for one in acls(TOPICS, Principals(), services=[NOTIFICATIONS], triggers=["orders.events"]):
        assert not {"Create", "Alter", "AlterConfigs", "All"} & set(one.operations)


def test_a_client_only_writes() -> None:
    assert allowed("User:sagakit-client") == {
        ("topic", "t.desk.saga.inbox"): {"Write"},
        ("topic", "t.orders.events"): {"Write"},
    }


def test_a_service_reads_the_events_that_it_handles_and_writes_its_dead_letters() -> None:
    rights = allowed("User:sagakit-notifications")
    assert rights["topic", "t.orders.events"] == {"Read", "DescribeConfigs"}
    assert rights["topic", "t.orders.events.notifications.dlq"] == {"Write", "DescribeConfigs"}
    assert rights["group", "t.service.notifications"] == {"Read"}
    assert "Read" not in rights["topic", TOPICS.inbox]


def test_transactional_ids_of_instances_are_allowed_by_their_beginning() -> None:
    (one,) = [
        one
        for one in acls(TOPICS, Principals())
        if one.resource == "transactional-id" and one.principal == "User:sagakit-orchestrator"
    ]
    assert (one.name, one.pattern) == ("t.desk.orchestrator.", "prefixed")
    assert "--resource-pattern-type prefixed" in one.command("kafka:9092")


def test_commands_are_what_a_shell_takes() -> None:
    for one in acls(TOPICS, Principals(orchestrator="User:CN=saga kit,O=Shop"), services=[NOTIFICATIONS]):
        words = shlex.split(one.command("kafka:9092"), comments=True)
        assert words[0] == "kafka-acls.sh"
        assert words[words.index("--allow-principal") + 1] == one.principal
        assert words[words.index(f"--{one.resource}") + 1] == one.name
