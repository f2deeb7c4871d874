"""One cycle's work in the making: what was decided since the poll, none of it visible until the commit returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from sagakit.core.address import Address
from sagakit.core.events import Refused
from sagakit.core.state import State
from sagakit.orchestrator.memory import Entry
from sagakit.ports.log import Outgoing, TopicPartition, Work

Origin: TypeAlias = tuple[str, int, int] | bytes
"""What brought an event: topic, partition and offset of its record, or the state key whose timer was due."""


@dataclass(frozen=True, slots=True)
class Produced:
    """A record to write, and which part of which event's decision it is: so that a refused one is found again."""

    record: Outgoing
    target: Refused
    address: Address | None


class Blame(NamedTuple):
    """Whom to hold responsible for a record that the broker refuses."""

    origin: Origin
    target: Refused
    address: Address | None


@dataclass(frozen=True, slots=True)
class Staged:
    """The state of one key after this cycle: decoded for the next event, encoded for the log."""

    state: State | None
    entry: Entry | None
    record: Outgoing
    origin: Origin


@dataclass(slots=True)
class Cycle:
    """Everything between a poll and its commit."""

    now_ms: int
    definitions_read: bool = False
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    staged: dict[TopicPartition, dict[bytes, Staged]] = field(default_factory=dict)
    clocks: dict[TopicPartition, int] = field(default_factory=dict)
    _decisions: list[tuple[Origin, Sequence[Produced]]] = field(default_factory=list)

    def add(self, produced: Sequence[Produced], origin: Origin) -> None:
        """Stage the records of one decision."""
        self._decisions.append((origin, produced))

    def stage_state(self, partition: TopicPartition, key: bytes, staged: Staged) -> None:
        """Stage a state; only the last one of a key and cycle is written."""
        self.staged.setdefault(partition, {})[key] = staged

    def work(self) -> Work:
        """All of it, the states last."""
        records = [one.record for _, produced in self._decisions for one in produced]
        for states in self.staged.values():
            records.extend(staged.record for staged in states.values())
        return Work(records=records, offsets=self.offsets)

    def blame(self, culprit: int) -> Blame:
        """Which event a record of `work()` came from, by its index."""
        left = culprit
        for origin, produced in self._decisions:
            if left < len(produced):
                return Blame(origin, produced[left].target, produced[left].address)
            left -= len(produced)
        states = [staged for states in self.staged.values() for staged in states.values()]
        return Blame(states[left].origin, Refused.INPUT, None)

    def decided(self) -> set[Origin]:
        """Every origin that was decided in this cycle, and the timer of every key whose state it changes."""
        origins = {origin for origin, _ in self._decisions}
        return origins.union(*self.staged.values())
