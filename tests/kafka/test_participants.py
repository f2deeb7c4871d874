"""Participants on a real broker: isolation, offsets, handovers between processes, kills, what the broker refuses."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from sagakit.adapters.client_properties import ClientProperties, ClientPropertyError
from sagakit.adapters.kafka_messages import KafkaMessages
from sagakit.adapters.kafka_offsets import Offsets
from sagakit.adapters.kafka_starts import starting_offset
from sagakit.app.running import EXIT_STUCK
from sagakit.contracts.topics import Topics
from sagakit.failpoints import read_log
from sagakit.participants import Context, Formats, RuntimeSettings, Service, ServiceRuntime
from sagakit.ports.log import Outgoing, Record
from sagakit.ports.log import TopicPartition as Place
from sagakit.testing.fixtures import StartServer
from sagakit.testing.kafka import KafkaCluster, KafkaServer
from services.audit import check_ledger
from services.books import read_shop
from services.shop_models import CardCharged, ChargeCard
from tests.unit.participants import support

pytestmark = pytest.mark.kafka

PARTITIONS = 4
WAIT_S = 60


class Shop:
    """The topics of one test on the shared broker, and plain clients to look at them."""

    def __init__(self, kafka: KafkaServer, prefix: str) -> None:
        self.properties = {**kafka.client_properties(), "log_level": "0"}
        self.bootstrap = kafka.bootstrap
        self.topics = Topics(topic_prefix=prefix)
        self.formats: Formats = support.formats(support.registered(), self.topics)
        self.commands = self.topics.commands("payments")
        self.dead_letters = f"{self.commands}.dlq"
        self.group = self.topics.service_group("payments")
        self.admin = AdminClient(self.properties)
        self.create(self.commands, self.topics.inbox, self.dead_letters)
        self.producer = Producer({**self.properties, "partitioner": "murmur2_random"})

    def create(self, *topics: str, partitions: int = PARTITIONS, config: dict[str, str] | None = None) -> None:
        new = [NewTopic(topic, partitions, 1, config=config or {}) for topic in topics]
        for future in self.admin.create_topics(new).values():
            future.result(30)

    def send(self, *records: Outgoing) -> None:
        for record in records:
            self.producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
        assert self.producer.flush(30) == 0

    def charge(self, *numbers: int, attempt: int = 1) -> None:
        self.send(
            *(support.command(n, with_=self.formats, attempt=attempt, reply_partition=n % PARTITIONS) for n in numbers)
        )

    @contextmanager
    def running(
        self,
        service: Service,
        settings: RuntimeSettings | None = None,
        properties: dict[str, str | int | float | bool] | None = None,
    ) -> Iterator[support.RunningService]:
        exchange = support.exchange(service, self.formats)
        runtime = ServiceRuntime(
            service,
            answering=exchange,
            settings=settings,
            connect=lambda listener: KafkaMessages(
                properties=ClientProperties({"log_level": "0", **(properties or {})}),
                bootstrap_servers=self.bootstrap,
                group=self.topics.service_group(service.name),
                topics=exchange.topics,
                listener=listener,
            ),
        )
        started = support.RunningService(runtime)
        try:
            yield started
        finally:
            started.stop()

    def read(self, topic: str, until: Callable[[list[Record]], bool]) -> list[Record]:
        """Read a topic from its start until `until` holds of what was read."""
        consumer = Consumer(
            {**self.properties, "group.id": f"{self.group}.reader", "isolation.level": "read_uncommitted"}
        )
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        records: list[Record] = []
        deadline = time.monotonic() + WAIT_S
        try:
            while not until(records):
                assert time.monotonic() < deadline, f"only {len(records)} records came in {topic}"
                for message in consumer.consume(500, 0.1):
                    assert message.error() is None, message.error()
                    records.append(
                        Record(
                            topic,
                            message.partition() or 0,
                            message.offset() or 0,
                            0,
                            message.key(),
                            message.value(),
                            list(cast(list[tuple[str, bytes]], message.headers() or [])),
                        )
                    )
        finally:
            consumer.close()
        return records

    def replies(self, count: int) -> list[Record]:
        """At least `count` replies for different commands."""
        return self.read(self.topics.inbox, lambda records: len({causation(one) for one in records}) >= count)

    def committed(self) -> int:
        """The sum of the group's committed offsets."""
        consumer = Consumer({**self.properties, "group.id": self.group})
        try:
            asked = [TopicPartition(self.commands, partition) for partition in range(PARTITIONS)]
            return sum(max(0, position.offset) for position in consumer.committed(asked, timeout=10))
        finally:
            consumer.close()

    def delete_records(self, topic: str, before: int) -> None:
        targets = [TopicPartition(topic, partition, before) for partition in range(PARTITIONS)]
        for future in self.admin.delete_records(targets).values():
            future.result(30)

    def commit(self, offset: int) -> None:
        consumer = Consumer({**self.properties, "group.id": self.group})
        try:
            offsets = [TopicPartition(self.commands, partition, offset) for partition in range(PARTITIONS)]
            consumer.commit(offsets=offsets, asynchronous=False)
        finally:
            consumer.close()


@pytest.fixture
def shop(kafka: KafkaServer, topic_prefix: str) -> Shop:
    return Shop(kafka, topic_prefix)


def header(record: Record, name: str) -> str:
    return (dict(record.headers)[name] or b"").decode()


def causation(record: Record) -> str:
    return header(record, "ce_causationid")


def outcomes(records: list[Record]) -> Counter[str]:
    return Counter(header(record, "sagakit_outcome") for record in records)


def payments(seen: list[str] | None = None) -> Service:
    service = Service("payments")

    @service.command
    def charge(command: ChargeCard, ctx: Context) -> CardCharged:
        if seen is not None:
            seen.append(ctx.command_id)
        return CardCharged(payment_id=ctx.idempotency_key, charged_cents=command.amount_cents)

    return service


def test_replies_go_to_the_partition_that_the_command_names(shop: Shop) -> None:
    shop.charge(*range(200))
    with shop.running(payments()):
        replies = shop.replies(200)
    assert outcomes(replies) == {"succeeded": 200}
    saga_partition = {support.command(n, with_=shop.formats).key: n % PARTITIONS for n in range(200)}
    assert all(saga_partition[reply.key or b""] == reply.partition for reply in replies)
    assert shop.committed() == 200


def test_a_restarted_service_goes_on_where_it_was(shop: Shop) -> None:
    first: list[str] = []
    second: list[str] = []
    shop.charge(*range(20))
    with shop.running(payments(first)):
        shop.replies(20)
    shop.charge(*range(20, 40))
    with shop.running(payments(second)):
        shop.replies(40)
    assert len(set(first)) == len(set(second)) == 20
    assert not set(first) & set(second)


def test_commands_of_aborted_transactions_are_never_handled(shop: Shop) -> None:
    """Rule 17: what an orchestrator took back must not happen."""
    seen: list[str] = []
    producer = Producer({**shop.properties, "transactional.id": shop.group})
    producer.init_transactions(30)
    for number, commits in ((1, False), (2, True)):
        command = support.command(number, with_=shop.formats)
        producer.begin_transaction()
        producer.produce(command.topic, command.value, command.key, headers=list(command.headers))
        producer.flush(10)
        producer.commit_transaction(10) if commits else producer.abort_transaction(10)
    with shop.running(payments(seen)):
        replies = shop.replies(1)
    assert (
        seen == [header(support.received(support.command(2, with_=shop.formats)), "ce_id")] == [causation(replies[0])]
    )


def test_a_new_group_begins_at_the_start_of_the_log(shop: Shop) -> None:
    shop.charge(*range(40))
    shop.delete_records(shop.commands, 2)
    left = 40 - 2 * PARTITIONS
    with shop.running(payments()):
        replies = shop.replies(left)
    assert len({causation(reply) for reply in replies}) == left


def test_records_deleted_before_they_were_handled_stop_their_partition_loudly(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 4: a lost offset is an incident, not a shrug."""
    shop.charge(*range(40))
    shop.commit(1)
    shop.delete_records(shop.commands, 3)
    with shop.running(payments()) as service:
        wait_until(lambda: len(service.runtime.standing_still) == PARTITIONS)
    assert shop.committed() == PARTITIONS
    assert "stands still" in caplog.text
    assert "kafka-consumer-groups" in caplog.text


@pytest.mark.parametrize(
    ("committed", "log_start", "log_end", "start"),
    [
        (None, 0, 9, 0),
        (None, 3, 9, None),
        (5, 0, 9, 5),
        (3, 3, 9, 3),
        (9, 3, 9, 9),
        (2, 3, 9, None),
        (10, 3, 9, None),
        (0, 0, 0, 0),
    ],
)
def test_where_a_partition_begins(committed: int | None, log_start: int, log_end: int, start: int | None) -> None:
    assert starting_offset(committed, log_start, log_end) == start


def test_a_reply_larger_than_the_broker_takes_becomes_a_small_failure(shop: Shop) -> None:
    """Rule 18: a flush says nothing; only the delivery report does."""
    small = shop.topics.service_topic("small.inbox")
    shop.create(small, config={"max.message.bytes": "2000"})
    service = Service("payments")

    @service.command
    def charge(command: ChargeCard, ctx: Context) -> CardCharged:
        return CardCharged(payment_id=os.urandom(5_000).hex(), charged_cents=1)

    command = support.command(1, with_=shop.formats)
    there = [(name, small.encode() if name == "sagakit_reply_topic" else value) for name, value in command.headers]
    shop.send(command._replace(headers=there))
    with shop.running(service):
        (reply,) = shop.read(small, lambda records: len(records) == 1)
        wait_until(lambda: shop.committed() == 1)
    assert header(reply, "sagakit_outcome") == "failed"
    assert shop.formats.avro.decode(reply.value or b"").data["kind"] == "ReplyTooLarge"


def test_what_cannot_be_answered_is_dead_lettered_as_it_came_and_blocks_nothing(shop: Shop) -> None:
    command = support.command(1, with_=shop.formats)
    nowhere = [(name, b"no.such.topic" if name == "sagakit_reply_topic" else value) for name, value in command.headers]
    shop.send(
        Outgoing(shop.commands, None, b"poison", b"\xff\xfe", [("from", b"elsewhere")]),
        Outgoing(shop.commands, None, b"poison", None, []),
        command._replace(headers=nowhere),
    )
    shop.charge(2, 3)
    with shop.running(payments(), properties={"producer.topic.metadata.propagation.max.ms": 500}):
        replies = shop.replies(2)
        dead = shop.read(shop.dead_letters, lambda records: len(records) == 3)
        wait_until(lambda: shop.committed() == 5)
    assert outcomes(replies) == {"succeeded": 2}
    assert {one.value for one in dead} == {b"\xff\xfe", None, command.value}
    raw = next(one for one in dead if one.value == b"\xff\xfe")
    assert (raw.key, raw.headers[0]) == (b"poison", ("from", b"elsewhere"))
    assert "nobody to reply to" in header(raw, "sagakit_reason")


def test_a_handler_slower_than_the_poll_interval_keeps_its_partition(shop: Shop) -> None:
    release = threading.Event()
    entered = threading.Event()
    service = Service("payments")

    @service.command
    def charge(command: ChargeCard, ctx: Context) -> CardCharged:
        if ctx.attempt == 9:
            entered.set()
            assert release.wait(WAIT_S)
        return CardCharged(payment_id="x", charged_cents=1)

    short: dict[str, str | int | float | bool] = {"max.poll.interval.ms": 6_000, "session.timeout.ms": 6_000}
    shop.charge(1, attempt=9)
    with shop.running(service, properties=short) as started:
        assert entered.wait(WAIT_S)
        held = started.runtime.assigned
        assert len(held) == PARTITIONS
        threading.Timer(8, release.set).start()
        shop.replies(1)
        assert started.runtime.assigned == held
        wait_until(lambda: shop.committed() == 1)


def test_a_second_instance_takes_over_without_a_command_lost_or_handled_twice(shop: Shop) -> None:
    """Rule 18: a participant finishes what it was given, or leaves it to the next."""
    seen: list[str] = []
    shop.charge(*range(300))
    with shop.running(payments(seen)) as first:
        shop.replies(300)
        with shop.running(payments(seen)) as second:
            wait_until(lambda: len(first.runtime.assigned) == len(second.runtime.assigned) == PARTITIONS // 2)
            shop.charge(*range(300, 600))
            shop.replies(600)
        wait_until(lambda: len(first.runtime.assigned) == PARTITIONS)
        shop.charge(*range(600, 700))
        shop.replies(700)
    assert len(seen) == len(set(seen)) == 700
    assert shop.committed() == 700


def test_a_stuck_handler_keeps_its_partition_from_the_next_owner_until_the_process_is_gone(
    shop: Shop, tmp_path: Path
) -> None:
    """Rule 18: the partition must not be another's while the handler runs."""
    ended: list[int | None] = []
    asking = threading.Lock()  # two threads that ask at once are not both told
    service = Service("payments")

    @service.command
    def charge(command: ChargeCard, ctx: Context) -> CardCharged:
        with asking:
            ended.append(stuck.process.poll())
        return CardCharged(payment_id="x", charged_cents=1)

    shop.charge(*range(20))
    stuck = ServiceProcess(shop, tmp_path, app="tests.kafka.stuck_service:app")
    try:
        wait_until(lambda: len(list(tmp_path.glob("entered-*"))) == 20)
        with shop.running(service):
            shop.replies(20)
    finally:
        stuck.process.kill()
        stuck.process.wait(30)
    assert set(ended) == {EXIT_STUCK}


def test_a_partition_that_left_while_it_was_crowded_is_consumed_when_it_comes_back(shop: Shop) -> None:
    """The client keeps the pause of a partition that leaves, and would fetch nothing of it ever again."""
    release = threading.Event()
    entered: list[str] = []
    service = Service("payments")

    @service.command
    async def charge(command: ChargeCard, ctx: Context) -> CardCharged:
        entered.append(ctx.command_id)
        await asyncio.to_thread(release.wait, WAIT_S)
        return CardCharged(payment_id="x", charged_cents=1)

    shop.charge(*range(100))
    settings = RuntimeSettings(in_work_max_per_partition=5, handover_s=0.2)
    with shop.running(service, settings) as first:
        wait_until(lambda: len(entered) == 100)
        with shop.running(payments()) as second:
            wait_until(lambda: len(second.runtime.assigned) == PARTITIONS // 2)
        wait_until(lambda: len(first.runtime.assigned) == PARTITIONS)
        release.set()
        shop.charge(*range(100, 200))
        shop.replies(200)
        wait_until(lambda: shop.committed() == 200)


def test_protected_properties_are_refused_by_name(shop: Shop) -> None:
    with pytest.raises(ClientPropertyError, match=r"isolation\.level"):
        ClientProperties({"isolation.level": "read_uncommitted"})


def test_replies_wait_for_a_broker_that_is_away(start_server: StartServer, topic_prefix: str) -> None:
    kafka = start_server(KafkaCluster(1))
    shop = Shop(kafka, topic_prefix)
    release, entered = threading.Event(), threading.Event()
    service = Service("payments")

    @service.command
    def charge(command: ChargeCard, ctx: Context) -> CardCharged:
        entered.set()
        assert release.wait(WAIT_S)
        return CardCharged(payment_id="x", charged_cents=1)

    shop.charge(*range(30))
    with shop.running(service):
        assert entered.wait(WAIT_S)
        kafka.kill_broker(1)
        release.set()
        kafka.start_broker(1)
        replies = shop.replies(30)
        wait_until(lambda: shop.committed() == 30)
    assert len({causation(reply) for reply in replies}) == 30


class ServiceProcess:
    """The payments service as a process that is started again whenever it dies."""

    def __init__(self, shop: Shop, folder: Path, points: str = "", app: str = "services.payments.app:app") -> None:
        self.log = folder / "kills"
        self.folder = folder
        self._command = [sys.executable, "-m", "tests.kafka.run_service", shop.bootstrap, shop.topics.topic_prefix]
        self._command.append(app)
        self._environment = os.environ | {"SHOP_DATA": str(folder), "SAGAKIT_FAILPOINT_LOG": str(self.log)}
        self._environment |= {"SAGAKIT_FAILPOINTS": points, "SERVICE_THREADS": "20"}
        self.starts = 0
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        self.process = subprocess.Popen(self._command, env=self._environment)
        return self.process

    def keep_alive(self) -> bool:
        if self.process.poll() is not None:
            assert self.process.returncode == -signal.SIGKILL
            self.start()
        return True

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


KILLS = ";".join(
    (
        "participant.in-handler=kill@0.02:1:after=30:limit=1",
        "participant.in-local-transaction=kill@0.02:2:after=30:limit=1",
        "participant.between-effect-and-reply=kill@0.02:3:after=30:limit=1",
        "participant.after-reply=kill@0.02:4:after=30:limit=1",
    )
)


@pytest.mark.slow
def test_killed_at_every_point_each_effect_happens_once(shop: Shop, tmp_path: Path) -> None:
    """Commands and their compensations, some of them before or without the command, while the service is killed."""
    forward = [support.command(number, with_=shop.formats) for number in range(300)]
    undone = [
        support.command(
            number,
            with_=shop.formats,
            type_="shop.payments.RefundCard",
            data={"order_id": f"order-{number}"},
            undoes=header(support.received(forward[number]), "sagakit_idempotency_key"),
        )
        for number in range(0, 300, 3)
    ]
    early, late = undone[:20], undone[20:]
    without = set(range(0, 60, 3))  # these were compensated before they came
    service = ServiceProcess(shop, tmp_path, KILLS)
    try:
        shop.send(*early, *forward, *late)

        def all_answered(records: list[Record]) -> bool:
            service.keep_alive()
            return len({causation(one) for one in records}) == len(forward) + len(undone)

        replies = shop.read(shop.topics.inbox, all_answered)
        wait_until(lambda: service.keep_alive() and shop.committed() == len(forward) + len(undone))
        assert service.stop() == 0
    finally:
        service.process.kill()
        service.process.wait(30)
    kills = list(read_log(service.log))
    assert {acted.point for acted in kills} == {
        "participant.in-handler",
        "participant.in-local-transaction",
        "participant.between-effect-and-reply",
        "participant.after-reply",
    }, "nothing is proven by what was not provoked"
    assert service.starts == len({acted.pid for acted in kills}) + 1  # two threads may come to a kill at once

    rows = read_shop(tmp_path)
    assert check_ledger(rows.ledgers["payments"]) == []
    charged = [row for row in rows.payments if row.charged_cents != row.refunded_cents]
    assert len(rows.payments) == 300 - len(without)
    assert len(charged) == 200
    assert len({row.saga_id for row in rows.payments}) == len(rows.payments)
    by_command: dict[str, set[str]] = {}
    for reply in replies:
        by_command.setdefault(causation(reply), set()).add(header(reply, "sagakit_outcome"))
    assert all(len(said) == 1 for said in by_command.values())  # sent twice perhaps, but never two answers
    fenced = [said for said in by_command.values() if said == {"rejected"}]
    assert len(fenced) == len(without)


def test_a_signal_ends_a_service_in_order(shop: Shop, tmp_path: Path) -> None:
    service = ServiceProcess(shop, tmp_path)
    shop.charge(1, 2, 3)
    shop.replies(3)
    assert service.stop() == 0
    assert shop.committed() == 3


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    asleep = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        asleep.wait(0.05)


def test_a_service_that_ends_has_committed_behind_the_marks_of_transactions(shop: Shop) -> None:
    """Rule 4: retention deletes the marks in time, and they must not look like commands that nobody handled."""
    transactional = Producer({**shop.properties, "transactional.id": f"{shop.group}.sender"})
    transactional.init_transactions(30)
    transactional.begin_transaction()
    sent = [support.command(number, with_=shop.formats, reply_partition=0) for number in range(12)]
    for record in sent:
        transactional.produce(record.topic, record.value, record.key, headers=list(record.headers))
    transactional.commit_transaction(30)
    with shop.running(payments()):
        shop.replies(12)
        wait_until(lambda: shop.committed() >= 12)
    partitions = [Place(shop.commands, number) for number in range(PARTITIONS)]
    ends = Offsets(ClientProperties(shop.properties)).ends(partitions)
    assert sum(ends.values()) > 12
    assert shop.committed() == sum(ends.values())
