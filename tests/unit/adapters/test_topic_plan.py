"""What the plan of topics asks of a broker, each setting with what would be lost or slow without it."""

from __future__ import annotations

import pytest

from sagakit.adapters.topics import Difference, FoundTopic, WantedTopic, compare, plan
from sagakit.contracts.topics import Topics

TOPICS = Topics()
PLAN = {one.name: one for one in plan(TOPICS, partitions=32, replication=3, services=["payments"])}
WEEK_MS = "604800000"
FOREVER = "-1"


def found(wanted: WantedTopic, **changed: str) -> dict[str, FoundTopic]:
    """The topic as it was planned, but for some settings (`_` stands for `.`)."""
    config = {**wanted.config, **{name.replace("_", "."): value for name, value in changed.items()}}
    return {wanted.name: FoundTopic(partitions=wanted.partitions_if_new, config=config)}


def differences(topic: str, **changed: str) -> tuple[Difference, ...]:
    return compare([PLAN[topic]], found(PLAN[topic], **changed))


@pytest.mark.parametrize("topic", [TOPICS.inbox, TOPICS.commands("payments")])
@pytest.mark.parametrize("limit", ["retention_ms", "retention_bytes"])
def test_what_nobody_has_read_yet_does_not_go_by_age_or_size(topic: str, limit: str) -> None:
    """Rule 4: a start that waits through a long outage is still there afterwards.

    A limit by size is only reported: it is the way out where nobody may delete what was consumed.
    """
    assert PLAN[topic].config[limit.replace("_", ".")] == FOREVER
    (difference,) = differences(topic, **{limit: WEEK_MS})
    assert difference.fatal is (limit == "retention_ms")


@pytest.mark.parametrize("topic", [TOPICS.state, TOPICS.backlog, TOPICS.definitions])
def test_what_the_broker_makes_by_itself_is_refused(topic: str) -> None:
    """Rule 5: a topic that came into being by use has one partition and forgets after a week."""
    wanted = PLAN[topic]
    by_use = FoundTopic(partitions=1, config={**wanted.config, "cleanup.policy": "delete", "retention.ms": WEEK_MS})
    refused = {one.setting for one in compare([wanted], {topic: by_use}) if one.fatal}
    assert refused == {"cleanup.policy"} | ({"partitions"} if topic != TOPICS.definitions else set())
    assert [one.setting for one in compare([wanted], {})] == ["topic"]


@pytest.mark.parametrize("topic", PLAN)
def test_no_topic_is_lost_with_one_broker(topic: str) -> None:
    """Rule 5: three copies, two of which must have a record before it counts, and no leader without the data."""
    assert PLAN[topic].replication == 3
    assert PLAN[topic].config["min.insync.replicas"] == "2"
    assert PLAN[topic].config["unclean.leader.election.enable"] == "false"
    assert {one.setting for one in differences(topic, min_insync_replicas="1")} == {"min.insync.replicas"}


def test_the_partitions_of_a_namespace_are_as_many_as_its_sagas_were_placed_by() -> None:
    """Rule 6: inbox, backlog and state are placed alike; what a service's topics have is the service's affair."""
    more = {name: FoundTopic(partitions=64, config=one.config) for name, one in PLAN.items()}
    refused = {one.topic for one in compare(PLAN.values(), more) if one.fatal}
    assert refused == {TOPICS.inbox, TOPICS.backlog, TOPICS.state, TOPICS.definitions}


def test_the_inbox_is_stamped_by_the_brokers() -> None:
    """Rule 14: partition time must not be the publishers'."""
    (difference,) = differences(TOPICS.inbox, message_timestamp_type="CreateTime")
    assert (difference.wanted, difference.fatal) == ("LogAppendTime", True)


def test_a_restore_reads_little_more_than_what_is_alive() -> None:
    """Rule 25: the active segment is never compacted, so it is small and closed soon; the cleaner comes often."""
    state = PLAN[TOPICS.state].config
    assert state["cleanup.policy"] == "compact"
    assert int(state["segment.bytes"]) <= 64 * 1024 * 1024
    assert int(state["segment.ms"]) <= 600_000
    assert int(state["max.compaction.lag.ms"]) <= 600_000
    assert float(state["min.cleanable.dirty.ratio"]) <= 0.1
    assert int(state["delete.retention.ms"]) >= 86_400_000, "a reader that is slow must still see a tombstone"
    assert [one.fatal for one in differences(TOPICS.state, segment_bytes="1073741824")] == [False]


def test_the_history_is_compacted_seldom_and_in_large_pieces() -> None:
    """Rule 25: its keys are unique, so a pass of the cleaner copies everything and removes nothing."""
    backlog = PLAN[TOPICS.backlog].config
    assert backlog["cleanup.policy"] == "compact"
    assert float(backlog["min.cleanable.dirty.ratio"]) >= 0.9
    assert int(backlog["segment.bytes"]) >= 1024 * 1024 * 1024
    assert "max.compaction.lag.ms" not in backlog
