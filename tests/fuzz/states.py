"""A state topic where some states are not as we wrote them: they are gone on with, or their partition stands still."""

from __future__ import annotations

from typing import Final

from sagakit.ports.log import Record, StateRecord, TopicPartition
from tests.fuzz.mutations import mutated
from tests.fuzz.records import Found, Fuzz, shown
from tests.fuzz.world import PARTITIONS

_RECORDS: Final = 1_000
"""How many make the sagas whose states are spoiled."""

_BATCH: Final = 40
_CYCLES: Final = 60
"""Enough for all that is there, and for timers to come due."""

_CYCLES_MAX: Final = 5_000


class StateFuzz(Fuzz):
    """One run: each round spoils some states, restores everything, goes on, then mends what stands still.

    What becomes of a saga whose state reads well and is another is nobody's promise: its history is not looked at.
    """

    def spoil(self, rounds: int) -> Found:
        """Go on until that many rounds are over, or something is wrong."""
        self.go(_RECORDS)
        self.found = Found(problems=self.found.problems)
        while self.found.records < rounds and not self.found.problems:
            spoiled = self._spoil()
            try:
                self._round(spoiled)
            except Exception as escaped:  # noqa: BLE001 - whatever escapes is what is looked for
                self.found.problems += [f"with the state {shown(one)}" for one, _, _ in spoiled]
                self._escaped(escaped)
            self.found.records += 1
        return self.found

    def _round(self, spoiled: list[tuple[Record, StateRecord, StateRecord]]) -> None:
        self._log.rebalance()
        self._forget()
        batch = [self._placed(self._maker.next()) for _ in range(_BATCH)]
        for _ in range(_CYCLES):
            self._pass()
        held = self._orchestrator.health().blocked
        self.found.answers["stood still" if held else "went on"] += 1
        for number in range(PARTITIONS):
            place = TopicPartition(self._topics.inbox, number)
            if self._log.unread(place) and not held.get(f"{place.topic}[{number}]"):
                self.found.problems.append(f"{place} is not read, and nothing is said of it")
        for record, good, bad in spoiled:
            states = self._log.states[record.partition]
            if states.get(record.key or b"") is bad:
                del states[record.key or b""]
                states[good.key or b""] = good
        self._log.rebalance()
        cycles = 0
        while not self._log.is_read and cycles < _CYCLES_MAX:
            self._pass()
            cycles += 1
        if not self._log.is_read:
            self.found.problems.append(f"stands still though its states are mended: {self._orchestrator.health()}")
        self._log.forget()
        self._account(batch)

    def _pass(self) -> None:
        self._maker.now_ms += self._random.choice((1, 20, 100, 700))
        self._orchestrator.cycle()
        self._take()

    def _spoil(self) -> list[tuple[Record, StateRecord, StateRecord]]:
        """Put something else in place of some states: each with where it lies, as it was, and as it is now."""
        spoiled: list[tuple[Record, StateRecord, StateRecord]] = []
        for _ in range(self._random.choice((1, 1, 2, 5))):
            number = self._random.randrange(PARTITIONS)
            states = self._log.states[number]
            known = [bad for _, _, bad in spoiled]
            held = [one for one in states.values() if one.value is not None and one not in known]
            if not held:
                continue
            good = self._random.choice(held)
            record = Record(self._topics.state, number, 0, 0, good.key, good.value, good.headers)
            other = mutated(self._random, record, self._own)
            if other.key != good.key and (other.key or b"") in states:
                continue
            bad = StateRecord(other.key or b"", other.value, other.headers)
            del states[good.key or b""]
            states[bad.key or b""] = bad
            spoiled.append((other, good, bad))
        return spoiled
