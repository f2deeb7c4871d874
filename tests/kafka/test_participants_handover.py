"""What is said of commands that have expired by the time that they come to a service's next process."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tests.kafka.test_participants import PARTITIONS, ServiceProcess, Shop, outcomes, shop, wait_until
from tests.unit.participants import support

__all__ = ["shop"]

pytestmark = pytest.mark.kafka

NUMBERS = range(20)


def ask(shop: Shop, first: int) -> None:
    """Commands that have expired before they come."""
    late = support.now_ms() - 1
    shop.send(*(support.command(first + n, with_=shop.formats, expires_at_ms=late) for n in NUMBERS))


def said(shop: Shop, before: int) -> Counter[str]:
    """The outcomes of the commands of `ask`, when `before` were answered before."""
    return outcomes(shop.replies(before + len(NUMBERS))[before:])


def offsets(shop: Shop) -> list[TopicPartition]:
    """The group's offsets."""
    consumer = Consumer({**shop.properties, "group.id": shop.group})
    try:
        asked = [TopicPartition(shop.commands, partition) for partition in range(PARTITIONS)]
        return consumer.committed(asked, timeout=10)
    finally:
        consumer.close()


def has_joined(shop: Shop) -> bool:
    """Whether the group has offsets; its coordinator may not be there yet."""
    try:
        return all(position.offset >= 0 for position in offsets(shop))
    except KafkaException as failure:
        if not failure.args[0].retriable() and failure.args[0].code() != KafkaError.NOT_COORDINATOR:
            raise
        return False


def marks(shop: Shop) -> set[str]:
    """What stands in the metadata of the group's offsets."""
    return {position.metadata or "" for position in offsets(shop)}


@pytest.mark.parametrize(
    ("ended_by", "outcome"), [(signal.SIGTERM, "expired"), (signal.SIGKILL, "failed")], ids=["SIGTERM", "SIGKILL"]
)
def test_only_what_was_handed_over_unbegun_is_said_to_have_had_no_effect(
    shop: Shop, tmp_path: Path, ended_by: signal.Signals, outcome: str
) -> None:
    service = ServiceProcess(shop, tmp_path)
    try:
        wait_until(lambda: has_joined(shop))  # while the topic is empty
        shop.charge(*range(20))
        shop.replies(20)
        wait_until(lambda: shop.committed() == 20)
        service.process.send_signal(ended_by)
        service.process.wait(30)
        ask(shop, 100)
        service.start()
        assert said(shop, 20) == {outcome: len(NUMBERS)}
    finally:
        service.process.kill()
        service.process.wait(30)


def test_what_one_owner_says_of_its_handover_is_not_said_of_the_next(shop: Shop, tmp_path: Path) -> None:
    """The next takes it back before it begins anything; a kill before its first commit proves it."""
    shop.charge(1)
    service = ServiceProcess(shop, tmp_path)
    try:
        shop.replies(1)
        assert service.stop() == 0
        assert all(mark.startswith("sagakit.begun-below=") for mark in marks(shop))
        killing = ServiceProcess(shop, tmp_path, "participant.in-handler=kill@1:1:limit=1")
        try:
            shop.charge(*range(1000, 1020))
            assert killing.process.wait(30) == -signal.SIGKILL
        finally:
            killing.process.kill()
        assert marks(shop) == {""}
    finally:
        service.process.kill()
        service.process.wait(30)
