"""The configuration files of a test cluster's brokers, as pure functions of its layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# The distinguished name in the brokers' own certificate: the super user by which brokers and controllers know each
# other.
BROKER_NAME = "sagakit-broker"

LOG4J_CONFIGURATION = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <Console name="console"><PatternLayout pattern="%d %p %m (%c)%n"/></Console>
  </Appenders>
  <Loggers>
    <Root level="WARN"><AppenderRef ref="console"/></Root>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
    <Logger name="kafka.server.BrokerServer" level="INFO"/>
    <Logger name="kafka.authorizer.logger" level="INFO"/>
    <Logger name="org.apache.kafka.raft.QuorumState" level="INFO"/>
  </Loggers>
</Configuration>
"""

# What a test cluster needs that a production broker has by default otherwise.
_TEST_DEFAULTS = {
    # A topic that springs into being has one partition and forgets after a week: a missing `topics apply` must show.
    "auto.create.topics.enable": "false",
    # The first member of a group waits 3 s for others by default.
    "group.initial.rebalance.delay.ms": "0",
    # A hanging transaction ends at its timeout and not up to 10 s later.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # 50 internal partitions each are made on first use by default: seconds of work on a small machine.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    # A dead broker is noticed in seconds, and one that was killed can come back no sooner than its death is noticed.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # 128 MB of heap by default, for compaction.
    "log.cleaner.dedupe.buffer.size": "16777216",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where one broker (and the controller in the same process) listens, on 127.0.0.1."""

    node_id: int
    client_port: int
    inter_broker_port: int
    controller_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerTls:
    """The PEM files of a TLS cluster."""

    key_and_certificate: Path
    authority: Path


def broker_properties(
    address: BrokerAddress,
    *,
    cluster: Sequence[BrokerAddress],
    log_directory: Path,
    tls: BrokerTls | None,
    super_users: Sequence[str],
    extra: Mapping[str, str],
) -> dict[str, str]:
    """The properties of the broker at `address`, one of the combined broker-controllers of `cluster`.

    With `tls`, clients come over SASL_SSL with SCRAM-SHA-512 and need ACLs, except `super_users`; brokers and
    controllers know each other by certificate. `extra` goes last and so may change anything.
    """
    replicas = min(3, len(cluster))
    in_sync_min = max(1, replicas - 1)
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(address.node_id),
        "controller.quorum.voters": ",".join(f"{node.node_id}@127.0.0.1:{node.controller_port}" for node in cluster),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "BROKER",
        "listeners": (
            f"CLIENT://127.0.0.1:{address.client_port},BROKER://127.0.0.1:{address.inter_broker_port},"
            f"CONTROLLER://127.0.0.1:{address.controller_port}"
        ),
        "advertised.listeners": (
            f"CLIENT://127.0.0.1:{address.client_port},BROKER://127.0.0.1:{address.inter_broker_port}"
        ),
        "log.dirs": str(log_directory),
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(in_sync_min),
        "offsets.topic.replication.factor": str(replicas),
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": str(in_sync_min),
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": str(in_sync_min),
        **_TEST_DEFAULTS,
    }
    properties.update(_plaintext() if tls is None else _tls_and_scram(tls, super_users))
    properties.update(extra)
    return properties


def render(properties: Mapping[str, str]) -> str:
    """The properties as a Java properties file. Values are single-line; a backslash is an escape there."""
    return "".join(f"{name}={value}\n" for name, value in properties.items()).replace("\\", "\\\\")


def _plaintext() -> dict[str, str]:
    return {"listener.security.protocol.map": "CLIENT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT"}


def _tls_and_scram(tls: BrokerTls, super_users: Sequence[str]) -> dict[str, str]:
    return {
        "listener.security.protocol.map": "CLIENT:SASL_SSL,BROKER:SSL,CONTROLLER:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tls.key_and_certificate),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(tls.authority),
        "listener.name.broker.ssl.client.auth": "required",
        "listener.name.controller.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.client.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": ";".join(f"User:{name}" for name in [f"CN={BROKER_NAME}", *super_users]),
    }
