"""Checks of what the brokers are and how they are set."""

import logging
import re
import time
from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka.admin import ResourceType

from sagakit.adapters.kafka_records import error_of
from sagakit.app.doctor.findings import Finding, fail, ok, warn
from sagakit.app.doctor.probe import TIMEOUT_S, Probe

_API: Final = re.compile(r"ApiKey (\w+) \(\d+\) Versions \d+\.\.(\d+)")

# What Apache Kafka 3.7 brought to the protocol (KIP-951): a compatible broker that has it is as new.
_NEEDED: Final = {"Produce": 10, "Fetch": 16}
_KIP_890: Final = ("AddPartitionsToTxn", 4)

_SKEW_WARN_MS: Final = 500
_SKEW_FAIL_MS: Final = 2_000
_TRANSACTION_TIMEOUT_MS: Final = 10_000


def protocol_versions(probe: Probe) -> Mapping[str, int]:
    """The newest version of each request that a broker takes, as it told the client when they met."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.Logger("sagakit.doctor.protocol", logging.DEBUG)
    logger.addHandler(Keep())
    producer = probe.producer({"debug": "feature,broker", "log_level": 7, "logger": logger})
    producer.list_topics(timeout=TIMEOUT_S)
    probe.wait(lambda: producer.poll(0.05) >= 0 and any("Fetch" in line for line in lines), "the broker's versions")
    producer.close()
    return {match[1]: int(match[2]) for line in lines if (match := _API.search(line))}


def is_new_enough(probe: Probe) -> Finding:
    """Apache Kafka 3.7 or newer, told by the protocol: brokers do not give their version away."""
    check = "version 3.7 or newer"
    versions = protocol_versions(probe)
    old = [name for name, least in _NEEDED.items() if versions.get(name, -1) < least]
    spoken = ", ".join(f"{name} {versions.get(name, 'none')}" for name in _NEEDED)
    if old:
        return fail(check, f"it speaks {spoken}; 3.7 speaks {_spoken(_NEEDED)}", "Upgrade the brokers to 3.7 or newer.")
    return ok(check, f"it speaks {spoken}")


def verifies_transactions(probe: Probe) -> Finding:
    """Without KIP-890's verification, a late record can open a transaction that nobody ever ends."""
    check = "transaction verification"
    name, least = _KIP_890
    if protocol_versions(probe).get(name, -1) < least:
        return fail(check, "the broker does not know it (KIP-890)", "Upgrade the brokers to 3.7 or newer.")
    setting = _broker(probe).get("transaction.partition.verification.enable")
    if setting == "false":
        return fail(check, "it is switched off", "Set transaction.partition.verification.enable=true on the brokers.")
    if setting is None:
        return warn(
            check, "known, but whether it is on cannot be read", "Ask who runs the brokers, or allow DescribeConfigs."
        )
    return ok(check, "records are taken only into transactions that the coordinator knows")


def survives_a_broker(probe: Probe) -> Finding:
    """Enough replicas, none of them elected without the data."""
    check = "min.insync.replicas"
    brokers, settings = len(probe.admin.list_topics(timeout=TIMEOUT_S).brokers), _broker(probe)
    if brokers == 1:
        return warn(
            check,
            "there is one broker: its loss loses everything, and its death within a commit that commit (Kafka 4.3)",
            "Run three brokers in production.",
        )
    if not settings:
        return warn(check, "the brokers' settings cannot be read", "Allow DescribeConfigs on the cluster, or ask.")
    wanted = {
        "min.insync.replicas": 2,
        "transaction.state.log.min.isr": 2,
        "transaction.state.log.replication.factor": 3,
        "offsets.topic.replication.factor": 3,
    }
    low = [f"{name}={settings[name]}" for name, least in wanted.items() if int(settings.get(name, least)) < least]
    if low:
        return warn(
            check, f"{', '.join(low)}: one broker's loss may lose records", f"Set at least {_properties(wanted)}."
        )
    if settings.get("unclean.leader.election.enable") == "true":
        return fail(
            check,
            "unclean.leader.election.enable=true: a replica without the data may become leader",
            "Set unclean.leader.election.enable=false on the brokers.",
        )
    return ok(check, f"{brokers} brokers, min.insync.replicas={settings.get('min.insync.replicas', 'unknown')}")


def allows_compaction(probe: Probe) -> Finding:
    """State, backlog and definitions are compacted topics."""
    check = "compaction"
    topic = probe.topic("compacted", config={"cleanup.policy": "compact"})
    policy = probe.config(ResourceType.TOPIC, topic).get("cleanup.policy")
    if policy != "compact":
        return fail(check, f"a topic made with cleanup.policy=compact has {policy}", "Allow compacted topics.")
    if _broker(probe).get("log.cleaner.enable") == "false":
        return fail(check, "the log cleaner is switched off", "Set log.cleaner.enable=true on the brokers.")
    return ok(check, "a compacted topic can be made, and the cleaner is not switched off")


def makes_no_topics_by_use(probe: Probe) -> Finding:
    """A topic that springs into being has the wrong partitions and forgets after a week."""
    check = "no topics by use"
    if _broker(probe).get("auto.create.topics.enable") == "true":
        return warn(
            check,
            "auto.create.topics.enable=true: a misspelt topic springs into being instead of failing",
            "Set auto.create.topics.enable=false on the brokers; `sagakit topics apply` makes what is needed.",
        )
    return ok(check, "topics do not spring into being")


def takes_large_records(probe: Probe) -> Finding:
    """The brokers must take what sagakit is told that they take."""
    check = "max.message.bytes"
    wanted, limit = probe.settings.max_record_bytes, _broker(probe).get("message.max.bytes")
    if limit is None:
        return warn(
            check,
            f"the brokers' limit cannot be read; sagakit is told {wanted}",
            "Allow DescribeConfigs, or set SAGAKIT_MAX_RECORD_BYTES to the brokers' message.max.bytes.",
        )
    if int(limit) < wanted:
        return fail(
            check,
            f"the brokers take {limit} bytes, sagakit is told {wanted}: its records would be refused",
            f"Set SAGAKIT_MAX_RECORD_BYTES={limit}, or raise message.max.bytes of the brokers.",
        )
    return ok(check, f"the brokers take {limit} bytes, sagakit is told {wanted}")


def allows_transaction_timeout(probe: Probe) -> Finding:
    """The orchestrator asks for ten seconds."""
    check = "transaction.max.timeout.ms"
    limit = _broker(probe).get("transaction.max.timeout.ms")
    if limit is not None and int(limit) < _TRANSACTION_TIMEOUT_MS:
        return fail(
            check,
            f"the brokers allow {limit} ms, the orchestrator needs {_TRANSACTION_TIMEOUT_MS}",
            f"Set transaction.max.timeout.ms to at least {_TRANSACTION_TIMEOUT_MS} on the brokers.",
        )
    return ok(check, f"{limit or 'unknown'} ms, the orchestrator needs {_TRANSACTION_TIMEOUT_MS}")


def keeps_time(probe: Probe) -> Finding:
    """Timers compare this machine's clock with the brokers' append times."""
    check = "clock skew"
    brokers = probe.admin.list_topics(timeout=TIMEOUT_S).brokers
    topic = probe.topic("clock", partitions=len(brokers), config={"message.timestamp.type": "LogAppendTime"})
    skews = {number: _skew_ms(probe, topic, number) for number in range(len(brokers))}
    worst = max(skews.values(), key=abs)
    found = f"the brokers' clocks differ from this machine's by up to {abs(worst)} ms"
    remedy = "Synchronise the clocks of brokers and instances (NTP, chrony)."
    if abs(worst) > _SKEW_FAIL_MS:
        return fail(check, found, remedy)
    return warn(check, found, remedy) if abs(worst) > _SKEW_WARN_MS else ok(check, found)


def _skew_ms(probe: Probe, topic: str, partition: int) -> int:
    """How far the leader's clock is ahead of ours; the time that the record took is no part of it."""
    producer = probe.producer({"acks": "all", "linger.ms": 0})
    stamped: list[int] = []

    def delivered(_error: object, message: Message) -> None:
        stamped.append(message.timestamp()[1])

    producer.list_topics(topic, timeout=TIMEOUT_S)
    producer.produce(topic, b"warm-up", partition=partition)
    producer.flush(TIMEOUT_S)
    before_ms = time.time_ns() // 1_000_000
    producer.produce(topic, b"now", partition=partition, on_delivery=delivered)
    producer.flush(TIMEOUT_S)
    after_ms = time.time_ns() // 1_000_000
    producer.close()
    if not stamped or stamped[0] < 0:
        raise TimeoutError("the broker did not stamp a record")
    return 0 if before_ms <= stamped[0] <= after_ms else min(stamped[0] - before_ms, stamped[0] - after_ms, key=abs)


def _broker(probe: Probe) -> Mapping[str, str]:
    """The configuration of one broker; empty where it may not be read."""
    broker = next(iter(probe.admin.list_topics(timeout=TIMEOUT_S).brokers))
    try:
        return probe.config(ResourceType.BROKER, str(broker))
    except KafkaException as exception:
        if error_of(exception).code() != KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            raise
        return {}


def _spoken(versions: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _properties(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
