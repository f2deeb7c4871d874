"""Fuzzed records through real Kafka: two orchestrators take them all in, go on with their sagas, and lose nothing."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from sagakit.contracts.messages import ControlMessage
from sagakit.core import transitions as t
from sagakit.core.events import Verb
from sagakit.core.placement import partition_of
from sagakit.ports.log import Outgoing, Record
from tests.fuzz.mutations import mutated
from tests.prove.bad_input import SAGA, by_hand
from tests.prove.desk import Desk, open_desk
from tests.prove.evidence import examine_rules, transitions
from tests.prove.house import House, require
from tests.prove.shop import Shop, now_ms

_BURST: Final = 1_000
_REST_S: Final = 300.0


def prove(house: House, folder: Path, *, prefix: str, records: int, seed: int = 1) -> dict[str, Any]:
    """Write `records` into the inbox, half of them with something wrong; each must be decided once, or passed on."""
    with Shop(house, folder, prefix, by_hand(seed)) as shop, open_desk(shop) as desk:
        fuzz = _Fuzz(shop, desk, Random(seed))
        written = 0
        while written < records:
            count = min(_BURST, records - written)
            shop.write(*(fuzz.next() for _ in range(count)))
            written += count
            fuzz.look()
            shop.wait(shop.is_read, "everything that was written has been read", _REST_S)
        shop.wait(shop.is_read, "everything that was written has been read", _REST_S)
        shop.wait(lambda: shop.is_at_rest(fuzz.started()), "every saga has ended or waits for a person alone", _REST_S)
        shop.wait(shop.is_read, "everything that was written has been read", _REST_S)
        complaints = list(_unaccounted(shop))
        require(not complaints, f"{len(complaints)} complaints: " + "\n".join(complaints[:10]))
        answers = Counter(type(one).__name__ for one in transitions(shop))
        require(not shop.troupe.deaths(), "a process died")
        return {"records": written, "answers": dict(answers.most_common()), **examine_rules(shop)}


class _Fuzz:
    """Makes the next record: a start, a reply to a command that was seen, a control, a signal; half of them wrong."""

    def __init__(self, shop: Shop, desk: Desk, random: Random) -> None:
        self._shop = shop
        self._desk = desk
        self._random = random
        self._sagas: list[str] = []

    def look(self) -> None:
        """Take in what has happened, and the commands that came of it."""
        self._shop.look()
        self._desk.take()

    def started(self) -> Iterator[str]:
        """The sagas that the backlog knows as started."""
        for saga_id in self._shop.watch.sagas:
            if self._shop.standing(saga_id) is not None and self._runs(saga_id):
                yield saga_id

    def _runs(self, saga_id: str) -> bool:
        return any(isinstance(one, t.SagaStarted) for one in self._shop.history(saga_id))

    def next(self) -> Outgoing:
        """The next record for the inbox, where its key belongs."""
        record = self._whole()
        if self._random.random() < 0.5:
            key, value, headers = record.key, record.value, record.headers
            wrong = mutated(self._random, Record(record.topic, 0, 0, 0, key, value, headers), self._shop.own)
            record = Outgoing(record.topic, None, wrong.key or b"", wrong.value, wrong.headers)
        elsewhere = self._random.random() < 0.02
        count = self._shop.settings.partitions
        home = self._random.randrange(count) if elsewhere else partition_of(record.key, count)
        return record._replace(partition=home)

    def _whole(self) -> Outgoing:
        chance, compose = self._random.random(), self._shop.client.compose
        if self._desk.commands and chance < 0.6:
            command = self._random.choice(self._desk.commands[-2_000:])
            if chance < 0.5:
                return self._desk.answer(command)
            return self._desk.rejection(command, "NOT_TODAY")
        if not self._sagas or chance < 0.75:
            start = self._shop.start(SAGA, self._shop.next_orders(1)[0])
            self._sagas.append(start.saga_id or "")
            return start.record
        saga_id = self._random.choice(self._sagas[-2_000:])
        if chance < 0.9:
            verb = self._random.choice((Verb.CANCEL, Verb.RETRY))
            control = ControlMessage(saga_id=saga_id, verb=verb, actor="fuzz", reason="fuzz")
            return compose.control(control, at_ms=now_ms()).record
        return compose.signal(saga_id, "hint", None, at_ms=now_ms(), keep_ms=60_000).record


def _unaccounted(shop: Shop) -> Iterator[str]:
    """Records of the inbox that were not decided exactly once, nor passed on to another partition."""
    inbox = shop.topics.inbox
    decided: Counter[tuple[int, int]] = Counter()
    for one in transitions(shop):
        source = one.header.cause.source
        if (one.input is not None or isinstance(one, t.RecordDeadLettered)) and source is not None:
            decided[source.partition, source.offset] += source.topic == inbox
    times_read: Counter[bytes | None] = Counter()
    times_decided: Counter[bytes | None] = Counter()
    undecided: list[Record] = []
    for record in shop.read(inbox):
        times = decided[record.partition, record.offset]
        times_read[record.value] += 1
        times_decided[record.value] += times
        if times > 1:
            yield f"{record.partition}/{record.offset} was decided {times} times"
        if times == 0:
            undecided.append(record)
    for record in undecided:  # passed on: then its copy was decided, wherever it came to
        if not times_decided[record.value]:
            yield f"{record.partition}/{record.offset} was never decided: {str(record)[:400]}"
