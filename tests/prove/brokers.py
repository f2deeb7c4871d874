"""Three brokers, and what befalls them under load: leaders die with transactions open, one freezes, all are restarted,
the controller is lost, a disk is full. `min.insync.replicas` is 2 of 3, and nothing may be lost or happen twice.

With transactions open, for certain: an orchestrator stops itself (SIGSTOP) in one, the broker is killed, and it goes on
(SIGCONT) within its session, with a transaction whose leader or coordinator is no more.
"""

import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

from confluent_kafka.admin import ClusterMetadata

from sagakit.failpoints import read_log
from sagakit.ports.log import TopicPartition
from tests.prove.evidence import examine
from tests.prove.house import House, require
from tests.prove.restarts import restart_broker
from tests.prove.shop import Cast, Shop

PER_SECOND: Final = 30.0
_OPEN: Final = "orchestrator.transaction-open"
_STOPS: Final = 2
"""The number of the orchestrator that stops itself."""

_FROZEN_S: Final = 12.0
"""Longer than a broker's session, the client's and every transaction's timeout."""

_COORDINATORS: Final = "__transaction_state"
_ORDERS_BETWEEN: Final = 30
_WAIT_S: Final = 120.0


def prove(house: House, folder: Path, *, prefix: str, leaders: int, seed: int = 1) -> dict[str, Any]:
    """Everything once, the death of a leader `leaders` times; then compare all, saga by saga."""
    took: dict[str, int] = {}
    with Shop(house, folder, prefix, Cast(seed=seed)) as shop:
        counts: dict[str, Any] = {}
        scenes: dict[str, Callable[[], Any]] = {
            "leaders": lambda: _leaders_die(shop, leaders, seed),
            "frozen": lambda: _freeze_each(shop),
            "rolled": lambda: _restart_each(shop),
            "controllers": lambda: _lose_the_controller(shop),
            "disks": lambda: _fill_a_disk(shop),
        }
        for name, scene in scenes.items():
            began = time.monotonic()
            counts[name] = scene()
            took[name] = round(time.monotonic() - began)
        shop.place(20)
        shop.settle(_WAIT_S)
        return {**counts, "took_s": took, **examine(shop)}


# A leader dies with a transaction open ------------------------------------------------------------------------------


def _leaders_die(shop: Shop, times: int, seed: int) -> dict[str, int]:
    """Kill the leader of a partition that an open transaction has written to, or the transaction's coordinator."""
    log = shop.folder / "stopped.jsonl"
    armed = {
        "SAGAKIT_FAILPOINTS": f"{_OPEN}=stop@0.2:{seed}:after=5:limit={times}",
        "SAGAKIT_FAILPOINT_LOG": str(log),
    }
    shop.troupe.stop(f"orchestrator-{_STOPS}")
    stopping = shop.start_orchestrator(_STOPS, armed)
    shop.wait_until_ready()
    random, killed = Random(seed), Counter[str]()
    for number in range(times):
        shop.load(
            PER_SECOND,
            lambda wanted=number + 1: len(list(read_log(log))) >= wanted,  # type: ignore[misc]
            "an orchestrator has stopped itself with a transaction open",
        )
        role = ("state", "coordinator", "inbox")[number % 3]
        if not (
            held := _held_by(shop, f"orchestrator-{_STOPS}")
        ):  # only triggers: whatever it writes, it commits there
            role = "coordinator"
        broker = _leader(shop, role, random.choice(held or [0]))
        shop.house.kafka.kill_broker(broker)
        stopping.resume()
        killed[role] += 1
        _more(shop)
        shop.house.kafka.start_broker(broker)
        _await_replicas(shop)
    shop.settle(_WAIT_S)
    return dict(killed)


def _leader(shop: Shop, role: str, partition: int) -> int:
    topics = shop.topics
    if role == "coordinator":
        identity = f"{topics.orchestrator_group}.orchestrator-{_STOPS}"
        return _leader_of(shop, _COORDINATORS, _java_hash(identity))
    return _leader_of(shop, topics.state if role == "state" else topics.inbox, partition)


def _held_by(shop: Shop, name: str) -> list[int]:
    """The inbox partitions of an orchestrator, by what it has said last of each."""
    held: dict[int, bool] = {}
    for line in shop.troupe.process(name).output().splitlines():
        if f"topic={shop.topics.inbox}" in line and ("partition assigned" in line or "partition revoked" in line):
            number = int(line.partition("partition=")[2].split()[0])
            held[number] = "assigned" in line
    return sorted(one for one, mine in held.items() if mine)


def _leader_of(shop: Shop, topic: str, number: int) -> int:
    partitions = _metadata(shop).topics[topic].partitions
    return int(partitions[number % len(partitions)].leader)


def _java_hash(text: str) -> int:
    """`Utils.abs(text.hashCode())`, by which a coordinator's partition is found."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value & 0x7FFFFFFF if value != 0x80000000 else 0


# Others --------------------------------------------------------------------------------------------------------------


def _freeze_each(shop: Shop) -> int:
    """Each broker stands still for a while, with every connection open, and comes back as if nothing had been."""
    kafka = shop.house.kafka
    for broker in kafka.brokers:
        kafka.pause_broker(broker)
        try:
            until = time.monotonic() + _FROZEN_S
            shop.load(PER_SECOND, lambda end=until: time.monotonic() >= end, "the time is over", _WAIT_S)  # type: ignore[misc]
        finally:
            kafka.resume_broker(broker)
        _await_replicas(shop)
        _more(shop)
    return len(kafka.brokers)


def _restart_each(shop: Shop) -> int:
    """A rolling restart: each broker is stopped in order and started again, when the others have all replicas."""
    kafka = shop.house.kafka
    for broker in kafka.brokers:
        _more(shop)
        kafka.stop_broker(broker)
        _more(shop)
        kafka.start_broker(broker)
        _await_replicas(shop)
    return len(kafka.brokers)


def _lose_the_controller(shop: Shop) -> list[int]:
    """The leader of the quorum dies; another one has to lead, under load, before it is started again."""
    kafka = shop.house.kafka
    lost = kafka.controller()
    restart_broker(shop, lost)
    _await_replicas(shop)
    found = kafka.controller()
    require(found != lost, f"broker {lost} led the quorum, was killed, and no other one has led it since")
    return [lost, found]


def _fill_a_disk(shop: Shop) -> int:
    """A broker can write nothing more; it gives up, the others go on, and it comes back when there is room again.

    No file of its process may grow (RLIMIT_FSIZE), which Kafka meets where it would meet a disk without room: in the
    write that fails.
    """
    kafka = shop.house.kafka
    broker = kafka.brokers[-1]
    process = kafka.process(broker)
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, hard))
    shop.load(PER_SECOND, lambda: not process.is_running, f"broker {broker} has given up", _WAIT_S)
    _more(shop)
    kafka.start_broker(broker)
    _await_replicas(shop)
    _more(shop)
    return 1


def _more(shop: Shop) -> None:
    placed = len(shop.placed)
    shop.load(PER_SECOND, lambda: len(shop.placed) >= placed + _ORDERS_BETWEEN, "some more orders are placed", _WAIT_S)


def _await_replicas(shop: Shop) -> None:
    """Wait until each partition has all its replicas: only then may the next broker go."""
    shop.wait(lambda: not _missing(shop), "every replica is in sync", _WAIT_S)


def _missing(shop: Shop) -> Mapping[TopicPartition, list[int]]:
    return {
        TopicPartition(name, number): list(one.isrs)
        for name, topic in _metadata(shop).topics.items()
        for number, one in topic.partitions.items()
        if len(one.isrs) < len(one.replicas)
    }


def _metadata(shop: Shop) -> ClusterMetadata:
    return shop.admin.list_topics(timeout=10)
