"""The user's client properties: merged, refused where exactly-once rests on them, and never shown with secrets."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sagakit.adapters.client_properties import (
    PROTECTED,
    ClientProperties,
    ClientPropertyError,
    make_admin,
    make_consumer,
    make_producer,
)


@pytest.mark.parametrize("name", sorted(PROTECTED))
@pytest.mark.parametrize("prefix", ["", "consumer.", "producer.", "admin."])
def test_a_protected_property_is_refused_by_name(name: str, prefix: str) -> None:
    """Rules 4, 17 and 24: no reset, no uncommitted reads, no other strategy; and whatever else correctness rests on."""
    with pytest.raises(ClientPropertyError, match=f"{prefix}{name} cannot be set"):
        ClientProperties({f"{prefix}{name}": "x"})


def test_the_users_properties_go_over_the_defaults_and_under_what_is_fixed() -> None:
    properties = ClientProperties(
        {
            "bootstrap.servers": "b:1",
            "linger.ms": "9",
            "producer.linger.ms": "7",
            "consumer.fetch.max.bytes": "5",
            "client.id": "theirs",
        }
    )
    assert properties.producer(defaults={"linger.ms": 0, "acks": 1}, fixed={"acks": "all"}) == {
        "bootstrap.servers": "b:1",
        "linger.ms": "7",
        "acks": "all",
        "client.id": "theirs",
        "socket.timeout.ms": 9_000,
    }
    assert "socket.timeout.ms" not in properties.producer(defaults={}, fixed={"transactional.id": "t"})
    assert properties.consumer(defaults={"fetch.max.bytes": 1}, fixed={"client.id": "ours"}) == {
        "bootstrap.servers": "b:1",
        "linger.ms": "9",
        "fetch.max.bytes": "5",
        "client.id": "ours",
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 2_000,
        "socket.timeout.ms": 9_000,
    }
    assert "fetch.max.bytes" not in properties.admin()


def test_a_short_poll_interval_is_possible_also_where_no_group_is_joined() -> None:
    """The client's own session timeout of 45 s refused it, and the threads that restore ended by it."""
    properties = ClientProperties({"bootstrap.servers": "127.0.0.1:1", "consumer.max.poll.interval.ms": "10000"})
    make_consumer(properties.consumer(defaults={}, fixed={"group.id": "g"})).close()
    other = ClientProperties({"bootstrap.servers": "127.0.0.1:1", "group.protocol": "consumer"})
    assert "session.timeout.ms" not in other.consumer(defaults={}, fixed={}), "the client does not know it there"


def test_secrets_are_in_no_text() -> None:
    secrets = {
        "sasl.password": "hunter2",
        "producer.sasl.password": "hunter2",
        "ssl.key.password": "hunter2",
        "ssl.key.pem": "hunter2",
        "ssl.keystore.password": "hunter2",
        "sasl.oauthbearer.client.secret": "hunter2",
        "sasl.oauthbearer.config": "hunter2",
    }
    properties = ClientProperties({**secrets, "client.id": "shown"})
    assert "hunter2" not in repr(properties)
    assert "hunter2" not in str(properties.masked())
    assert properties.masked()["client.id"] == "shown"
    merged = properties.consumer(defaults={}, fixed={})
    assert merged["sasl.password"] == "hunter2"


def test_a_property_that_librdkafka_does_not_know_is_an_error_that_names_it() -> None:
    with pytest.raises(ClientPropertyError, match=r"no\.such\.property"):
        make_producer({"no.such.property": "1"})
    with pytest.raises(ClientPropertyError, match=r"session\.timeout\.ms"):
        make_consumer({"group.id": "g", "session.timeout.ms": "soon"})
    with pytest.raises(ClientPropertyError, match=r"security\.protocol"):
        make_admin({"security.protocol": "none"})


def test_the_group_protocol_is_the_users_choice() -> None:
    assert ClientProperties({}).group_protocol == "classic"
    assert ClientProperties({"group.protocol": "CONSUMER"}).group_protocol == "consumer"
    assert ClientProperties({"consumer.group.protocol": "consumer"}).group_protocol == "consumer"


_UNDER_INSTRUMENTATION = """
import json, sys
from opentelemetry.instrumentation.confluent_kafka import ConfluentKafkaInstrumentor
ConfluentKafkaInstrumentor().instrument()
import confluent_kafka
from confluent_kafka import cimpl
from sagakit.adapters.client_properties import make_consumer, make_producer
assert confluent_kafka.Producer is not cimpl.Producer, "the instrumentor replaces nothing: this proves nothing"
properties = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
producer, consumer = make_producer(properties), make_consumer({**properties, "group.id": "g"})
json.dump([type(producer) is cimpl.Producer, type(consumer) is cimpl.Consumer], sys.stdout)
consumer.close()
"""


def test_auto_instrumentation_does_not_reach_these_clients() -> None:
    """It is applied before the program's own imports, as `opentelemetry-instrument` does: hence a process."""
    ran = subprocess.run([sys.executable, "-c", _UNDER_INSTRUMENTATION], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [True, True]
