"""The servers of `sagakit.testing`, against the real thing."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from sagakit.testing.embedded import EMBEDDED_LIMITS, EmbeddedKafka
from sagakit.testing.errors import PortsUnavailableError, ServerError, ServerFailedError
from sagakit.testing.fixtures import StartServer
from sagakit.testing.kafka import KafkaCluster, KafkaServer
from sagakit.testing.ports import PortLease
from sagakit.testing.registry import RealRegistry

QUIET = {"log_level": "0"}  # brokers are killed here: librdkafka's complaints are expected


def create_topic(server: KafkaServer, topic: str, *, partitions: int = 1, config: dict[str, str] | None = None) -> None:
    admin = AdminClient({**server.client_properties(), **QUIET})
    for created in admin.create_topics([NewTopic(topic, partitions, config=config or {})]).values():
        created.result(timeout=30)


def produce(server: KafkaServer, topic: str, *values: bytes) -> None:
    producer = Producer({**server.client_properties(), **QUIET, "acks": "all"})
    errors: list[object] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(60) == 0
    assert errors == [None] * len(values)


def read_to_end(
    server: KafkaServer, topic: str, *, isolation: str = "read_committed", user: str | None = None
) -> list[bytes]:
    """The values of partition 0 up to what this isolation level may see."""
    properties = server.client_properties(user)
    consumer = Consumer(
        {
            **properties,
            **QUIET,
            "group.id": f"{topic}-{uuid.uuid4().hex}",
            "isolation.level": isolation,
            "enable.partition.eof": "true",
            "enable.auto.commit": "false",
        }
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    values: list[bytes] = []
    while True:
        message = consumer.poll(60)
        assert message is not None, "neither a record nor the end of the partition came"
        if (error := message.error()) is not None:
            consumer.close()
            if error.code() == KafkaError._PARTITION_EOF:
                return values
            raise KafkaException(error)
        value = message.value()
        assert isinstance(value, bytes)
        values.append(value)


@pytest.mark.kafka
class TestOneBroker:
    def test_committed_records_are_read_and_aborted_ones_are_not(self, kafka: KafkaServer, topic_prefix: str) -> None:
        topic = f"{topic_prefix}records"
        create_topic(kafka, topic)
        producer = Producer({**kafka.client_properties(), "transactional.id": topic_prefix})
        producer.init_transactions(60)
        producer.begin_transaction()
        producer.produce(topic, b"aborted")
        producer.flush(60)
        producer.abort_transaction(60)
        producer.begin_transaction()
        producer.produce(topic, b"committed")
        producer.commit_transaction(60)
        assert read_to_end(kafka, topic) == [b"committed"]
        assert read_to_end(kafka, topic, isolation="read_uncommitted") == [b"aborted", b"committed"]

    def test_topics_do_not_come_into_being_by_use(self, kafka: KafkaServer, topic_prefix: str) -> None:
        # The client waits 30 s by default for a topic that may have been created just now.
        producer = Producer({**kafka.client_properties(), "topic.metadata.propagation.max.ms": 500})
        errors: list[KafkaError | None] = []
        producer.produce(f"{topic_prefix}absent", b"lost", on_delivery=lambda error, _: errors.append(error))
        producer.flush(60)
        assert [error and error.code() for error in errors] == [KafkaError.UNKNOWN_TOPIC_OR_PART]

    def test_compacted_topic_is_what_was_asked_for(self, kafka: KafkaServer, topic_prefix: str) -> None:
        create_topic(kafka, f"{topic_prefix}state", partitions=3, config={"cleanup.policy": "compact"})
        metadata = AdminClient(kafka.client_properties()).list_topics(f"{topic_prefix}state", timeout=30)
        assert len(metadata.topics[f"{topic_prefix}state"].partitions) == 3


@pytest.mark.kafka
class TestBrokerLifeAndDeath:
    def test_killed_broker_comes_back_with_its_data_on_its_port(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        cluster = start_server(KafkaCluster(1, log_directory=tmp_path))
        create_topic(cluster, "records")
        produce(cluster, "records", b"one", b"two")
        bootstrap, killed = cluster.bootstrap, cluster.process(1)
        cluster.kill_broker(1)
        assert not psutil.pid_exists(killed.pid)
        cluster.start_broker(1)
        assert cluster.bootstrap == bootstrap
        assert cluster.process(1).pid != killed.pid
        produce(cluster, "records", b"three")
        assert read_to_end(cluster, "records") == [b"one", b"two", b"three"]

    def test_paused_broker_answers_nobody_until_it_is_resumed_and_stop_leaves_nothing(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        cluster = start_server(KafkaCluster(1, log_directory=tmp_path))
        cluster.pause_broker(1)
        with pytest.raises(KafkaException):
            AdminClient({**cluster.client_properties(), **QUIET}).list_topics(timeout=1)
        cluster.resume_broker(1)
        assert set(AdminClient(cluster.client_properties()).list_topics(timeout=60).brokers) == {1}
        process, root = psutil.Process(cluster.process(1).pid), cluster._root
        port = int(cluster.bootstrap.rpartition(":")[2])
        cluster.stop()
        assert not process.is_running()
        assert not root.exists()
        PortLease.exactly((port,)).release()

    def test_data_directory_outlives_the_cluster(self, start_server: StartServer, tmp_path: Path) -> None:
        first = start_server(KafkaCluster(1, data_directory=tmp_path))
        create_topic(first, "records")
        produce(first, "records", b"kept")
        first.stop()
        second = start_server(KafkaCluster(1, data_directory=tmp_path))
        assert read_to_end(second, "records") == [b"kept"]
        with pytest.raises(ServerError, match=r"holds a cluster of 1 brokers, plaintext.*delete the directory"):
            KafkaCluster(3, data_directory=tmp_path).start()

    def test_broker_that_does_not_come_up_shows_its_log(self, start_server: StartServer, tmp_path: Path) -> None:
        broken = KafkaCluster(1, log_directory=tmp_path, properties={"num.io.threads": "-1"})
        with pytest.raises(ServerFailedError, match=r"(?s)broker 1.*num\.io\.threads"):
            start_server(broken)
        assert not broken._root.exists()

    @pytest.mark.usefixtures("startable")
    def test_busy_port_is_named(self, kafka: KafkaServer) -> None:
        port = int(kafka.bootstrap.rpartition(":")[2])
        cluster = KafkaCluster(1, client_ports=[port])
        with pytest.raises(PortsUnavailableError, match=f"Port {port}"):
            cluster.start()
        assert not cluster._root.exists()

    @pytest.mark.usefixtures("startable")
    def test_parent_that_is_killed_leaves_no_broker(self, tmp_path: Path) -> None:
        script = (
            "import sys, time; from pathlib import Path; from sagakit.testing.kafka import KafkaCluster\n"
            "cluster = KafkaCluster(data_directory=Path(sys.argv[1])).start()\n"
            "print(cluster.process(1).pid, flush=True); time.sleep(600)"
        )
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            broker = psutil.Process(int(parent.stdout.readline()))
            assert "java" in broker.name()
            parent.kill()
        _, alive = psutil.wait_procs([broker], timeout=20)
        assert alive == []


@pytest.fixture(scope="module")
def secure(startable: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    logs = tmp_path_factory.mktemp("secure")
    users = {"reader": "reader-password", "stranger": "stranger-password"}
    with KafkaCluster(1, security="tls+scram", users=users, log_directory=logs) as cluster:
        create_topic(cluster, "records")
        produce(cluster, "records", b"secret")
        allow = [(ResourceType.TOPIC, "records"), (ResourceType.GROUP, "records")]
        bindings = [
            AclBinding(
                kind,
                name,
                ResourcePatternType.PREFIXED,
                "User:reader",
                "*",
                AclOperation.READ,
                AclPermissionType.ALLOW,
            )
            for kind, name in allow
        ]
        admin = AdminClient(cluster.client_properties())  # kept: its futures fail when it goes
        for created in admin.create_acls(bindings).values():
            created.result(timeout=30)
        yield cluster


@pytest.mark.kafka
class TestTlsAndScram:
    def test_user_with_acls_reads(self, secure: KafkaCluster) -> None:
        assert read_to_end(secure, "records", user="reader") == [b"secret"]

    def test_user_without_acls_is_refused(self, secure: KafkaCluster) -> None:
        with pytest.raises(KafkaException, match="AUTHORIZATION_FAILED"):
            read_to_end(secure, "records", user="stranger")

    def test_user_who_may_read_may_not_write(self, secure: KafkaCluster) -> None:
        producer = Producer({**secure.client_properties("reader"), **QUIET})
        errors: list[KafkaError | None] = []
        producer.produce("records", b"forged", on_delivery=lambda error, _: errors.append(error))
        producer.flush(60)
        assert [error and error.code() for error in errors] == [KafkaError.TOPIC_AUTHORIZATION_FAILED]

    def test_wrong_password_is_refused(self, secure: KafkaCluster) -> None:
        refusals: list[KafkaError] = []
        properties = {**secure.client_properties("reader"), **QUIET, "sasl.password": "wrong"}
        admin = AdminClient(properties, error_cb=refusals.append)
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=2)
        admin.poll(30)  # hands over what was reported meanwhile
        assert KafkaError._AUTHENTICATION in {refusal.code() for refusal in refusals}

    def test_unknown_authority_is_refused(self, secure: KafkaCluster) -> None:
        refusals: list[KafkaError] = []
        properties = {key: value for key, value in secure.client_properties().items() if key != "ssl.ca.location"}
        admin = AdminClient({**properties, **QUIET}, error_cb=refusals.append)
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=2)
        admin.poll(30)  # hands over what was reported meanwhile
        assert KafkaError._SSL in {refusal.code() for refusal in refusals}

    def test_user_that_does_not_exist_is_named(self, secure: KafkaCluster) -> None:
        with pytest.raises(ServerError, match=r"No user 'nobody'.*\['reader', 'stranger'\]"):
            secure.client_properties("nobody")


def order_schema(*fields: dict[str, object]) -> Schema:
    return Schema(json.dumps({"type": "record", "name": "Order", "namespace": "probe", "fields": fields}), "AVRO")


ID: dict[str, object] = {"name": "id", "type": "string"}
AMOUNT: dict[str, object] = {"name": "amount", "type": "long"}


@pytest.mark.registry
class TestRegistry:
    def test_incompatible_schema_is_refused(self, registry: RealRegistry, topic_prefix: str) -> None:
        subject = f"{topic_prefix}Order"
        with SchemaRegistryClient({"url": registry.url}) as client:
            client.set_compatibility(subject, level="FULL_TRANSITIVE")
            schema_id = client.register_schema(subject, order_schema(ID))
            assert client.get_schema(schema_id).schema_str == order_schema(ID).schema_str
            with pytest.raises(SchemaRegistryError) as refusal:
                client.register_schema(subject, order_schema(ID, AMOUNT))
        assert refusal.value.http_status_code == 409

    def test_killed_registry_comes_back_on_its_port_with_its_schemas_and_stop_ends_it(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        server = start_server(RealRegistry(data_directory=tmp_path))
        url = server.url
        with SchemaRegistryClient({"url": url}) as client:
            schema_id = client.register_schema("orders", order_schema(ID))
        server.kill()
        server.restart()
        assert server.url == url
        with SchemaRegistryClient({"url": url}) as client:
            kept = client.get_latest_version("orders")
        assert (kept.schema_id, kept.version) == (schema_id, 1)
        process = psutil.Process(server.process.pid)
        server.stop()
        assert not process.is_running()


class TestEmbeddedKafka:
    def test_records_go_through_and_the_limits_are_said(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, logger="sagakit.testing.embedded"), EmbeddedKafka() as cluster:
            assert EMBEDDED_LIMITS in caplog.text
            produce(cluster, "records", b"one")
            metadata = AdminClient(cluster.client_properties()).list_topics("records", timeout=30)
            assert len(metadata.topics["records"].partitions) == 4

    def test_other_processes_may_connect(self, embedded_kafka: EmbeddedKafka, topic_prefix: str) -> None:
        probe = (
            "import sys; from confluent_kafka.admin import AdminClient\n"
            "print(len(AdminClient({'bootstrap.servers': sys.argv[1]}).list_topics(timeout=30).brokers))"
        )
        assert re.fullmatch(r"other-processes-may-connect-[0-9a-f]{8}\.", topic_prefix)
        command = [sys.executable, "-c", probe, embedded_kafka.bootstrap]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"

    def test_nothing_answers_after_stop(self) -> None:
        with EmbeddedKafka() as cluster:
            properties = cluster.client_properties()
        with pytest.raises(KafkaException):
            AdminClient({**properties, **QUIET}).list_topics(timeout=1)
