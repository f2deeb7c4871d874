"""What the engine costs without Kafka: microseconds of CPU per saga. Run: `python -m tests.bench.loop`.

The very loop on a log that is a few lists in this process: records are taken from one and every command is answered at
once. Counted is the thread's CPU time within the loop less that within the log, so other work on the machine hardly
disturbs it. `--profile` tells which functions it goes to (of the plain source).
"""

import argparse
import cProfile
import pstats
from collections.abc import Collection, Mapping, Sequence
from time import thread_time
from typing import Final

from sagakit.app.orchestrator import assemble, calm_garbage_collector
from sagakit.contracts import envelope
from sagakit.ports.log import (
    Assigned,
    Batch,
    Change,
    Committed,
    Outcome,
    Outgoing,
    Record,
    Restored,
    TopicPartition,
    Work,
)
from tests.bench import engine
from tests.bench.loads import PARTITIONS
from tests.bench.world import REPLIES, World

BATCH: Final = 2_000
APPENDED_MS: Final = 1_795_000_000_000


class ListLog:
    """A log of lists: what is committed to the inbox, or answers a command, is delivered by the next poll."""

    def __init__(self, inbox: str, replies: Mapping[str, tuple[bytes, bytes]]) -> None:
        self._inbox = inbox
        self._replies = replies
        self._changes: list[Change] = []
        self._waiting: list[Record] = []
        self._ends = [0] * PARTITIONS
        self.spent_s = 0.0
        self.records = 0

    def subscribe(self, topics: Collection[str]) -> None:
        """Everything is assigned at once."""
        self._changes += [Assigned(partition=TopicPartition(one, p)) for one in topics for p in range(len(self._ends))]

    def poll(self, timeout_s: float) -> Batch:
        """What is there."""
        began = thread_time()
        records, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        changes, self._changes = self._changes, []
        self.spent_s += thread_time() - began
        return Batch(changes=changes, records=records)

    def restore(self, partition: TopicPartition, first_offset: int | None, *, state: bool = True) -> None:
        """There is no state yet."""
        self._changes.append(Restored(partition=partition, next_offset=0))

    def reached_end(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Time stands still here, so that no timer asks."""
        return {}

    def commit(self, work: Work) -> Outcome:
        """Take it, and answer its commands."""
        began = thread_time()
        self.records += len(work.records)
        for record in work.records:
            if (reply := self._replies.get(record.topic)) is not None:
                self._answer(record, *reply)
        self.spent_s += thread_time() - began
        return Committed()

    def close(self, deadline_s: float) -> None:
        """Nothing to release."""

    def put(self, record: Outgoing) -> None:
        """Append a record to the inbox."""
        assert record.partition is not None
        offset = self._ends[record.partition]
        self._ends[record.partition] = offset + 1
        self._waiting.append(
            Record(self._inbox, record.partition, offset, APPENDED_MS, record.key, record.value, list(record.headers))
        )

    def _answer(self, command: Outgoing, type_: bytes, value: bytes) -> None:
        headers = {name: value or b"" for name, value in command.headers}
        replied = [
            (envelope.SPEC_VERSION, b"1.0"),
            (envelope.ID, b"reply-" + headers[envelope.ID]),
            (envelope.TYPE, type_),
            (envelope.SOURCE, b"/bench"),
            (envelope.CAUSATION_ID, headers[envelope.ID]),
            (envelope.OUTCOME, b"succeeded"),
        ]
        self.put(Outgoing(self._inbox, int(headers[envelope.REPLY_PARTITION]), command.key, value, replied))


class ListDefinitions:
    """A topic of definitions in memory."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._new = list(records)

    def read_new(self) -> Sequence[Record]:
        """Everything, once."""
        new, self._new = self._new, []
        return new


def measure(sagas: int, rounds: int) -> None:
    """Print the best of some rounds: what the code costs when nothing else disturbs it."""
    world = World("unused:1", "loop-")
    answers = {
        world.topics.commands(service): REPLIES[command][0]
        for service, command in zip(
            engine.SERVICES,
            ("shop.inventory.ReserveStock", "shop.payments.ChargeCard", "shop.shipping.BookParcel"),
            strict=True,
        )
    }
    replies = {topic: (type_.encode(), world.encoded(type_)) for topic, type_ in answers.items()}
    definition = Record(
        world.topics.definitions, 0, 0, APPENDED_MS, b"three-steps/1", engine.published_definition(world), ()
    )
    log = ListLog(world.topics.inbox, replies)
    loop = assemble(
        world.settings, log, ListDefinitions([definition]), world.registry, own=world.own, clock=lambda: APPENDED_MS
    )
    for _ in range(5):
        loop.cycle()
    calm_garbage_collector()
    best_s = float("inf")
    for number in range(rounds):
        for one in range(sagas):
            start = engine.start(world, number * sagas + one)
            assert start.partition is not None
            headers = [(name, value) for name, value in start.headers if isinstance(value, bytes)]
            log.put(Outgoing(world.topics.inbox, start.partition, start.key, start.value, headers))
        before, log.spent_s, log.records = thread_time(), 0.0, 0
        while log._waiting:
            loop.cycle()
        best_s = min(best_s, (thread_time() - before - log.spent_s) / sagas)
        assert log.records == 16 * sagas or number == 0, log.records / sagas
    print(f"{best_s * 1e6:.1f} us of CPU a saga ({log.records / sagas:.1f} records written)")


def main() -> None:
    """Measure, or profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--sagas", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    if options.profile:
        profile = cProfile.Profile()
        profile.enable()
        measure(options.sagas, 2)
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        return
    measure(options.sagas, options.rounds)


if __name__ == "__main__":
    main()
