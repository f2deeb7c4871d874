"""Failover: an orchestrator dies by SIGKILL with a transaction open and many sagas in flight; how long until the other
one decides for its partitions, and what that time is made of.

The sagas are started for real and wait for a reply. What is timed is seen from outside: the moment of death in the
failpoint's log, the group by asking its coordinator, the survivor's steps by its own log, decisions by reading the
backlog committed.
"""

import re
import statistics
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from sagakit.adapters.client_properties import make_consumer
from sagakit.adapters.kafka_records import client_partition, to_records
from sagakit.contracts.envelope import CommandHeaders, Envelope
from sagakit.contracts.messages import decode_command, encode_reply
from sagakit.contracts.transitions import UnknownKind, decode_transition
from sagakit.core import transitions as t
from sagakit.core.placement import partition_of
from sagakit.core.values import Data
from sagakit.failpoints import read_log
from sagakit.ports.log import Outgoing, TopicPartition
from sagakit.testing.process import Process
from tests.prove.evidence import examine
from tests.prove.house import PARTITIONS, House, require
from tests.prove.shop import DESK, LONG_WAIT, Cast, Shop, now_ms

SIZES: Final = (100_000, 1_000_000)
_SAGA: Final = "long-wait"

_DIES: Final = 1
_SURVIVES: Final = 2
_OPEN: Final = "orchestrator.transaction-open"
_AFTER: Final = 5
"""In which transaction it dies."""

_CHUNK: Final = 5_000
_EXAMINED_MAX: Final = 5_000
"""Up to so many sagas everything is compared in the end; beyond, those that were answered after each failover."""

_ANSWERED: Final = 100
_RESERVED: Final[tuple[str, Data]] = ("shop.inventory.StockReserved", {"reservation_id": "shelf 7"})
_CHARGED: Final[tuple[str, Data]] = ("shop.payments.CardCharged", {"payment_id": "paid", "charged_cents": 1})
_WAIT_S: Final = 1_200.0
_RESTORE_S: Final = 300.0
_TICK_S: Final = 0.01


@dataclass(slots=True)
class Failover:
    """The moments of one failover, in epoch milliseconds; all later than the death."""

    died_ms: int
    detected_ms: int = 0
    assigned_ms: int = 0
    restored_ms: int = 0
    all_restored_ms: int = 0
    decided_ms: int = 0
    lost: list[int] = field(default_factory=list)
    states: int = 0
    fenced: bool = False

    def split(self) -> dict[str, int]:
        """What the time was spent on, in milliseconds, up to the first decision in the first restored partition."""
        return {
            "detection_ms": self.detected_ms - self.died_ms,
            "rebalance_ms": self.assigned_ms - self.detected_ms,
            "restore_ms": self.restored_ms - self.assigned_ms,
            "decision_ms": self.decided_ms - self.restored_ms,
            "until_all_restored_ms": self.all_restored_ms - self.assigned_ms,
            "after_detection_ms": self.decided_ms - self.detected_ms,
            "total_ms": self.decided_ms - self.died_ms,
        }


def prove(
    house: House, folder: Path, *, prefix: str, sizes: Sequence[int], rounds: int, seed: int = 1
) -> dict[str, Any]:
    """For each size: have so many sagas in flight, then kill an orchestrator `rounds` times."""
    return {f"{size:,} sagas": _at(house, folder / str(size), f"{prefix}{size}.", size, rounds, seed) for size in sizes}


def _at(house: House, folder: Path, prefix: str, sagas: int, rounds: int, seed: int) -> dict[str, Any]:
    cast = Cast(services=(), orchestrators=2, definitions=(LONG_WAIT,), seed=seed)
    with Shop(house, folder, prefix, cast) as shop:
        began = time.monotonic()
        _fill(shop, sagas)
        filled_s = time.monotonic() - began
        found = [_fail_over(shop, seed + number) for number in range(rounds)]
        answered = _answer_first(shop, _ANSWERED)
        compared: dict[str, int] = {}
        if sagas <= _EXAMINED_MAX:
            shop.wait(shop.is_read, "everything that was written has been read", _WAIT_S)
            compared = examine(shop, books=False, at_rest=False)
    require(all(one.fenced for one in found), "a transaction was left open and nobody was fenced")
    splits = [one.split() for one in found]
    return {
        "started_in_s": round(filled_s),
        "states_restored": [one.states for one in found],
        "median": {name: round(statistics.median(one[name] for one in splits)) for name in splits[0]},
        "worst": {name: max(one[name] for one in splits) for name in splits[0]},
        "fenced": sum(one.fenced for one in found),
        "answered_after": answered,
        **compared,
    }


def _fill(shop: Shop, sagas: int) -> None:
    """Start that many sagas, and wait until each waits for its reply: all of the inbox is consumed."""
    order = shop.next_orders(1)[0]
    payload = shop.client.compose.payload("shop.orders.OrderPlaced", order)
    written = 0
    while written < sagas:
        count = min(_CHUNK, sagas - written)
        shop.write(
            *(
                shop.client.compose.start(_SAGA, f"flight-{written + number}", payload, at_ms=now_ms()).record
                for number in range(count)
            )
        )
        written += count
    inbox = shop.partitions(shop.topics.inbox)
    deadline = time.monotonic() + _WAIT_S
    while not shop.has_consumed(inbox):
        require(time.monotonic() < deadline, f"{sagas} sagas were not started within {_WAIT_S:.0f} s")
        shop.troupe.look()


def _fail_over(shop: Shop, seed: int) -> Failover:
    """Arm one orchestrator to kill itself in a transaction, and watch the other one take over."""
    log = shop.folder / f"killed-{seed}.jsonl"
    armed = {
        "SAGAKIT_FAILPOINTS": f"{_OPEN}=kill@1:{seed}:after={_AFTER}:limit=1",
        "SAGAKIT_FAILPOINT_LOG": str(log),
    }
    survivor = shop.troupe.process(f"orchestrator-{_SURVIVES}")
    shop.troupe.stop(f"orchestrator-{_DIES}")
    shop.wait_until_ready()
    dying = shop.start_orchestrator(_DIES, armed)
    _await_restored(shop, dying)
    lost = _held(dying)
    with closing(_Decisions(shop, lost)) as decisions:
        said = len(survivor.output())
        while not any(read_log(log)):
            decisions.provoke()
        (death,) = read_log(log)
        shop.troupe.kill(f"orchestrator-{_DIES}")  # it is dead already: it leaves the stage
        found = Failover(died_ms=death.at_ms, lost=lost)
        _watch(shop, survivor, said, decisions, found)
    shop.start_orchestrator(_DIES)
    shop.wait_until_ready()
    _await_restored(shop, shop.troupe.process(f"orchestrator-{_DIES}"))
    return found


def _watch(shop: Shop, survivor: Process, said: int, decisions: "_Decisions", found: Failover) -> None:
    admin, group = shop.admin, shop.topics.orchestrator_group
    deadline = time.monotonic() + _RESTORE_S
    decisions.forget()
    while not (found.detected_ms and found.decided_ms and found.restored_ms):
        require(time.monotonic() < deadline, f"no failover within {_RESTORE_S:.0f} s: {found}")
        if not found.detected_ms and _members(admin, group) == 1:
            found.detected_ms = now_ms()
        decisions.provoke()
        if not found.decided_ms and decisions.first_ms:
            found.decided_ms = decisions.first_ms
        if not found.restored_ms:
            _read_log(survivor.output()[said:], shop.topics.inbox, found)


def _read_log(output: str, inbox: str, found: Failover) -> None:
    """The survivor's own account: when it was given the partitions, when the first of them was restored."""
    assigned: dict[int, int] = {}
    restored: dict[int, tuple[int, int]] = {}
    for line in output.splitlines():
        if f"topic={inbox}" in line and "partition assigned" in line:
            assigned[_number(line, "partition")] = _time_ms(line)
        elif f"topic={inbox}" in line and "partition restored" in line:
            restored[_number(line, "partition")] = _time_ms(line), _number(line, "states")
        elif "fencing" in line:
            found.fenced = True
    if set(found.lost) <= restored.keys():
        found.assigned_ms = min(assigned[one] for one in found.lost)
        found.restored_ms = min(restored[one][0] for one in found.lost)
        found.all_restored_ms = max(restored[one][0] for one in found.lost)
        found.states = sum(restored[one][1] for one in found.lost)


def _time_ms(line: str) -> int:
    return int(datetime.fromisoformat(line.split(" ", 1)[0]).timestamp() * 1000)


def _number(line: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", line)
    assert found is not None, line
    return int(found.group(1))


def _members(admin: AdminClient, group: str) -> int:
    """How many members the coordinator counts."""
    try:
        described = admin.describe_consumer_groups([group], request_timeout=2)[group].result()
    except KafkaException:
        return 0
    return len(described.members)


def _held(process: Process) -> list[int]:
    """The inbox partitions that an orchestrator has restored."""
    lines = [one for one in process.output().splitlines() if "partition restored" in one and "saga.inbox" in one]
    return sorted({_number(one, "partition") for one in lines})


def _await_restored(shop: Shop, process: Process) -> None:
    process.wait_until(
        lambda: len(_held(process)) >= PARTITIONS // 2, timeout_s=_RESTORE_S, what="restored its half of the partitions"
    )
    shop.troupe.look()


class _Decisions:
    """Starts sagas in the partitions that are to be lost, and sees when somebody decides there."""

    def __init__(self, shop: Shop, partitions: Sequence[int]) -> None:
        self._shop = shop
        self._partitions = set(partitions)
        self._payload = shop.client.compose.payload("shop.orders.OrderPlaced", shop.next_orders(1)[0])
        self._consumer = make_consumer(
            shop.properties.consumer(
                defaults={"fetch.wait.max.ms": 5},
                fixed={"group.id": "proof.decisions", "isolation.level": "read_committed"},
            )
        )
        places = [TopicPartition(shop.topics.backlog, one) for one in partitions]
        ends = shop.stable_ends(places)
        self._consumer.assign([client_partition(one, ends[one]) for one in places])
        self.first_ms = 0

    def forget(self) -> None:
        """What was decided before does not count any more: only what was begun after the death."""
        while self._consumer.consume(1_000, 0.2):
            pass
        self.first_ms = 0

    def provoke(self) -> None:
        """Start a saga in each of the partitions, and look for what was decided."""
        starts: list[Outgoing] = []
        wanted = set(self._partitions)
        while wanted:
            one = self._shop.client.compose.start(_SAGA, f"probe-{uuid.uuid4()}", self._payload, at_ms=now_ms())
            home = partition_of((one.saga_id or "").encode(), self._shop.settings.partitions)
            if home in wanted:
                wanted.discard(home)
                starts.append(one.record)
        self._shop.write(*starts)
        if self._consumer.consume(1, _TICK_S) and not self.first_ms:
            self.first_ms = now_ms()

    def close(self) -> None:
        """Release the consumer."""
        self._consumer.close()


def _answer_first(shop: Shop, count: int) -> int:
    """Answer some of the oldest sagas, and wait for their ends: what was restored goes on as it should."""
    topic = shop.topics.commands(DESK)
    consumer = make_consumer(
        shop.properties.consumer(defaults={}, fixed={"group.id": "proof.desk", "isolation.level": "read_committed"})
    )
    backlog = shop.partitions(shop.topics.backlog)
    with closing(consumer):
        ends = shop.stable_ends(backlog)
        consumer.assign([client_partition(one, 0) for one in shop.partitions(topic)])
        first = {one.saga_id: one for one in _commands(shop, consumer, count)}
        charges = shop.stable_ends(shop.partitions(topic))
        shop.write(*(_reply(shop, one, *_RESERVED) for one in first.values()))
        consumer.assign([client_partition(one, end) for one, end in charges.items()])
        shop.write(*(_reply(shop, one, *_CHARGED) for one in _commands(shop, consumer, len(first), first)))
        consumer.assign([client_partition(one, end) for one, end in ends.items()])
        ended: set[str] = set()
        deadline = time.monotonic() + _RESTORE_S
        while not first.keys() <= ended:
            require(time.monotonic() < deadline, f"{len(ended)} of {len(first)} restored sagas have ended")
            for record in to_records(consumer.consume(1_000, 0.1), []):
                decoded = decode_transition(record.value or b"", shop.own, shop.payloads)
                if not isinstance(decoded, UnknownKind) and isinstance(decoded[1], t.SagaCompleted):
                    ended.add(decoded[1].header.saga_id)
    return len(first)


def _commands(
    shop: Shop, consumer: Consumer, count: int, sagas: Collection[str] | None = None
) -> Iterator[CommandHeaders]:
    """The next commands, of these sagas alone if some are named."""
    deadline = time.monotonic() + _RESTORE_S
    found = 0
    while found < count:
        require(time.monotonic() < deadline, f"{found} of {count} commands came to the desk")
        for record in to_records(consumer.consume(count - found, 0.1), []):
            command = decode_command(record, shop.payloads).headers
            if sagas is None or command.saga_id in sagas:
                found += 1
                yield command


def _reply(shop: Shop, command: CommandHeaders, record: str, data: Data) -> Outgoing:
    said = Envelope(message_id=str(uuid.uuid4()), source="/proof/desk", at_ms=now_ms())
    return encode_reply(command, record, shop.payload(record, data).framed, said)
