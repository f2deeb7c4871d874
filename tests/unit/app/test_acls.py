"""The rights that each part is told to need."""

import shlex

from sagakit.app.doctor.acls import Part, Principals, acls
from sagakit.app.provisioning import ServiceTopics, wanted_topics
from sagakit.app.settings import Settings
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


def test_only_the_setup_and_the_doctor_create_topics_and_nobody_alters_them() -> None:
    for one in acls(TOPICS, Principals(), services=[NOTIFICATIONS], triggers=["orders.events"]):
        assert not {"Alter", "AlterConfigs", "All"} & set(one.operations)
        if "Create" in one.operations:
            assert one.part in (Part.SETUP, Part.DOCTOR)


def test_the_setup_may_make_every_topic_that_is_wanted_and_no_other() -> None:
    settings = Settings.load(namespace="desk", topic_prefix="t.")
    wanted = {one.name for one in wanted_topics(settings, [NOTIFICATIONS])}
    making = [
        one
        for one in acls(TOPICS, Principals(), services=[NOTIFICATIONS], triggers=["orders.events"])
        if one.part is Part.SETUP and "Create" in one.operations
    ]
    (prefixed,) = [one.name for one in making if one.pattern == "prefixed"]
    literal = {one.name for one in making if one.pattern == "literal"}
    assert prefixed == "t.desk.saga."
    assert {name for name in wanted if not name.startswith(prefixed)} == literal


def test_the_doctor_may_touch_only_what_is_its_own() -> None:
    for one in acls(TOPICS, Principals()):
        if one.part is Part.DOCTOR and one.resource != "cluster":
            assert (one.name, one.pattern) == ("t.sagakit-doctor-", "prefixed")


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
        if one.resource == "cluster":
            assert words[-1] == "--cluster"
            continue
        assert words[words.index(f"--{one.resource}") + 1] == one.name
