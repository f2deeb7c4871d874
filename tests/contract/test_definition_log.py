"""The contract of `DefinitionLog`, on both brokers; what only transactions can show, on the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from sagakit.adapters.kafka_definitions import KafkaDefinitionLog
from sagakit.ports.log import LogUnavailableError
from sagakit.testing.embedded import EmbeddedKafka
from sagakit.testing.kafka import KafkaServer
from tests.contract.worlds import EmbeddedWorld, KafkaWorld, values


@pytest.fixture
def kafka_world(kafka: KafkaServer, topic_prefix: str) -> Iterator[KafkaWorld]:
    one = KafkaWorld(kafka.client_properties(), topic_prefix)
    yield one
    one.close()


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest, topic_prefix: str) -> KafkaWorld | EmbeddedWorld:
    if request.param == "kafka":
        one: KafkaWorld = request.getfixturevalue("kafka_world")
        return one
    embedded: EmbeddedKafka = request.getfixturevalue("embedded_kafka")
    return EmbeddedWorld(embedded.client_properties(), topic_prefix)


def test_each_call_gives_what_is_new_up_to_this_moment(world: KafkaWorld | EmbeddedWorld) -> None:
    log = KafkaDefinitionLog(world.properties, world.trigger)
    assert log.read_new() == []
    for number in range(5):
        world.publish(world.trigger, 0, b"a%d" % number, b"b%d" % number)
        assert values(log.read_new()) == [b"a%d" % number, b"b%d" % number]
        assert log.read_new() == []
    log.close()
    late = KafkaDefinitionLog(world.properties, world.trigger)
    assert len(late.read_new()) == 10
    late.close()


@pytest.mark.kafka
def test_an_open_transaction_is_not_taken_for_the_end_and_nothing_is_lost_by_waiting(kafka_world: KafkaWorld) -> None:
    """Rule 9: what was committed behind it is published: to go on without it would be to decide by old definitions."""
    world = kafka_world
    log = KafkaDefinitionLog(world.properties, world.trigger, timeout_s=0.5)
    publisher = Producer({**world.plain, "transactional.id": f"{world.prefix}publisher", "linger.ms": 0})
    publisher.init_transactions(30)
    world.publish(world.trigger, 0, b"before")
    publisher.begin_transaction()
    publisher.produce(world.trigger, b"open", partition=0)
    assert publisher.flush(30) == 0
    world.publish(world.trigger, 0, b"behind")
    for _ in range(2):
        with pytest.raises(LogUnavailableError, match="transaction is open"):
            log.read_new()
    publisher.commit_transaction(30)
    patient = KafkaDefinitionLog(world.properties, world.trigger)
    assert values(patient.read_new()) == [b"before", b"open", b"behind"]
    assert values(log.read_new()) == [b"before", b"open", b"behind"], "what a failed call read comes with the next"
    patient.close()
    log.close()


@pytest.mark.kafka
def test_a_topic_that_is_not_there_is_unavailable(kafka_world: KafkaWorld) -> None:
    log = KafkaDefinitionLog(kafka_world.properties, f"{kafka_world.prefix}missing")
    with pytest.raises(LogUnavailableError):
        log.read_new()
    log.close()
