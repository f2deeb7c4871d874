"""What the embedded log says and refuses (Rule 20): it promises only what a mock broker can do."""

from __future__ import annotations

import logging

import pytest

from sagakit.adapters.embedded_log import EmbeddedLog
from sagakit.ports.log import Committed, LogUnavailableError, Outgoing, TopicPartition, Work
from sagakit.testing.embedded import EmbeddedKafka
from tests.contract.worlds import Driver, EmbeddedWorld


@pytest.fixture
def world(embedded_kafka: EmbeddedKafka, topic_prefix: str) -> EmbeddedWorld:
    return EmbeddedWorld(embedded_kafka.client_properties(), topic_prefix)


def test_rule_20_a_second_instance_is_refused_until_the_first_is_closed(world: EmbeddedWorld) -> None:
    """Rule 20: the embedded Kafka promises only what it can do."""
    first = world.open()
    with pytest.raises(LogUnavailableError, match="one orchestrator instance only") as refused:
        world.open()
    assert refused.value.fatal
    first.close(10)
    world.open().close(10)


def test_rule_20_it_says_at_start_that_nothing_survives(world: EmbeddedWorld, caplog: pytest.LogCaptureFixture) -> None:
    """Rule 20: the embedded Kafka promises only what it can do."""
    with caplog.at_level(logging.WARNING, EmbeddedLog.__module__):
        world.open().close(10)
    assert "nothing survives this process" in caplog.text


def test_rule_20_it_warns_before_a_partition_forgets(world: EmbeddedWorld, caplog: pytest.LogCaptureFixture) -> None:
    """Rule 20: the embedded Kafka promises only what it can do."""
    driver = Driver(world.open())
    driver.log.subscribe([world.inbox])
    partition = TopicPartition(world.inbox, 0)
    driver.until_restored(partition)
    record = Outgoing(world.out, 1, b"k", bytes(900_000), ())
    with caplog.at_level(logging.WARNING, EmbeddedLog.__module__):
        for _ in range(4):
            assert driver.log.commit(Work(records=[record], offsets={partition: 0})) == Committed()
        assert "drops its oldest records" not in caplog.text
        for _ in range(2):
            assert driver.log.commit(Work(records=[record], offsets={partition: 0})) == Committed()
    warnings = [one.getMessage() for one in caplog.records if "drops its oldest records" in one.getMessage()]
    assert len(warnings) == 1, "once for each partition"
    assert f"{world.out}[1] has taken 4 MiB" in warnings[0]
    driver.log.close(10)
