"""The plan of topics against a real broker: made, compared, and refused where they differ."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from sagakit.adapters.client_properties import ClientProperties, make_admin
from sagakit.adapters.topics import TopicAdmin, TopicsDifferError, commands, plan
from sagakit.contracts.topics import Topics
from sagakit.testing.kafka import KafkaServer
from tests.waiting import until

pytestmark = pytest.mark.kafka


@pytest.fixture
def properties(kafka: KafkaServer) -> ClientProperties:
    return ClientProperties(kafka.client_properties())


def alter(properties: ClientProperties, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = make_admin(properties.admin())  # held: its futures fail when it is gone
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result(timeout=30)

    def is_told() -> bool:
        (described,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
        return bool(described.result(timeout=30)[name].value == value)

    # The controller has it when it answers; the broker that is asked has it a moment later.
    until(is_told, timeout_s=30, what=f"{name}={value} to be told by the broker")


def test_what_is_missing_is_made_and_then_nothing_differs(properties: ClientProperties, topic_prefix: str) -> None:
    topics = Topics(topic_prefix=topic_prefix)
    wanted = plan(topics, partitions=3, replication=1, services=["payments"], service_partitions=2)
    admin = TopicAdmin(properties)
    with pytest.raises(TopicsDifferError, match=r"does not exist; `sagakit topics apply` makes it"):
        admin.require(wanted)
    made, differences = admin.apply(wanted)
    assert set(made) == {one.name for one in wanted}
    assert differences == ()
    assert admin.require(wanted) == ()
    found = admin.find([topics.inbox, topics.definitions, topics.commands("payments")])
    assert {name: one.partitions for name, one in found.items()} == {
        topics.inbox: 3,
        topics.definitions: 1,
        topics.commands("payments"): 2,
    }
    assert admin.apply(wanted) == ((), ())


def test_rules_4_and_5_a_topic_with_another_policy_or_retention_is_refused(
    properties: ClientProperties, topic_prefix: str
) -> None:
    """Rules 4 and 5: what was changed behind our back is found at the next start."""
    topics = Topics(topic_prefix=topic_prefix)
    wanted = plan(topics, partitions=1, replication=1, services=["payments"])
    admin = TopicAdmin(properties)
    admin.apply(wanted)
    alter(properties, topics.state, "cleanup.policy", "delete")
    alter(properties, topics.inbox, "retention.ms", "604800000")
    alter(properties, topics.state, "segment.ms", "604800000")
    with pytest.raises(TopicsDifferError) as refused:
        admin.require(wanted)
    assert {(one.topic, one.setting, one.wanted, one.found) for one in refused.value.differences} == {
        (topics.state, "cleanup.policy", "compact", "delete"),
        (topics.inbox, "retention.ms", "-1", "604800000"),
    }
    alter(properties, topics.state, "cleanup.policy", "compact")
    alter(properties, topics.inbox, "retention.ms", "-1")
    assert [one.setting for one in admin.require(wanted)] == ["segment.ms"], "it only costs speed"


def test_rule_6_another_partition_count_is_refused(properties: ClientProperties, topic_prefix: str) -> None:
    """Rule 6: another partition count moves sagas."""
    topics = Topics(topic_prefix=topic_prefix)
    admin = TopicAdmin(properties)
    admin.apply(plan(topics, partitions=2, replication=1))
    with pytest.raises(TopicsDifferError) as refused:
        admin.require(plan(topics, partitions=4, replication=1))
    assert {(one.topic, one.setting) for one in refused.value.differences} == {
        (topic, "partitions") for topic in (topics.inbox, topics.backlog, topics.state)
    }


def test_the_printed_commands_carry_the_whole_plan(properties: ClientProperties, topic_prefix: str) -> None:
    """Their settings make a topic with which `check` agrees."""
    topics = Topics(topic_prefix=topic_prefix)
    wanted = plan(topics, partitions=2, replication=1)
    admin, client = TopicAdmin(properties), make_admin(properties.admin())
    for line in commands(wanted, admin.check(wanted), "broker:9092"):
        words = shlex.split(line)
        assert words[:4] == ["kafka-topics.sh", "--bootstrap-server", "broker:9092", "--create"]
        given = dict(zip(words[4::2], words[5::2], strict=True))
        config = dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "--config")
        counts = int(given["--partitions"]), int(given["--replication-factor"])
        for created in client.create_topics([NewTopic(given["--topic"], *counts, config=config)]).values():
            created.result(timeout=30)
    admin.wait_for([one.name for one in wanted])
    assert admin.check(wanted) == ()
    alter(properties, topics.inbox, "retention.ms", "1000")
    (line,) = commands(wanted, admin.check(wanted), "broker:9092")
    assert line == (
        f"kafka-configs.sh --bootstrap-server broker:9092 --alter --entity-type topics --entity-name {topics.inbox} "
        "--add-config retention.ms=-1"
    )
    more = plan(topics, partitions=5, replication=1)
    partition_lines = [one for one in commands(more, admin.check(more), "broker:9092") if "partitions" in one]
    assert all(one.startswith("# ") and "new namespace" in one for one in partition_lines)
    assert len(partition_lines) == 3
