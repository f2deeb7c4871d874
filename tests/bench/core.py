"""How long one decision takes: microseconds of CPU per `decide`. Run: `python tests/bench/core.py`.

Each saga is run to its end by replies that succeed; the time is that of all its decisions through the number of them.
One follow-up command a reply (a chain) is the ordinary case. `--profile` tells where the time goes.
"""

import argparse
import cProfile
import pstats
from time import thread_time

from sagakit.core import ids
from sagakit.core.actions import SendCommand
from sagakit.core.decide import decide
from sagakit.core.definition import Definition, Kind
from sagakit.core.events import Cause, Now, Outcome, Reply, Source, Start
from sagakit.core.state import State
from sagakit.core.values import CONFLUENT, Data, Opened, Payload
from sagakit.proving.definitions import Path, command, definition, publication, task

FIELDS = {"order": Path("start.order_id"), "amount": Path("start.amount")}
START: Data = {"order_id": "o-1", "amount": 3_000}
REPLY: Data = {"id": "r-1"}


def chain(length: int) -> Definition:
    """Steps one after the other; the last but one is the pivot."""
    names = [f"s{number}" for number in range(length)]
    kinds = [Kind.COMPENSATABLE] * (length - 2) + [Kind.PIVOT, Kind.RETRIABLE]
    return definition(
        *(
            task(
                name,
                after=names[max(0, number - 1) : number],
                kind=kind,
                forward=command("Do", FIELDS),
                compensate=command("Undo", FIELDS) if kind is Kind.COMPENSATABLE else None,
                keep=["id"],
            )
            for number, (name, kind) in enumerate(zip(names, kinds, strict=True))
        ),
        start_keep=["order_id", "amount"],
        completed=publication("Done", FIELDS),
        compensated=publication("Undone", FIELDS),
    )


def fan(width: int) -> Definition:
    """Branches side by side between a first step and a join."""
    names = [f"b{number}" for number in range(width)]
    return definition(
        task("first", forward=command("Do", FIELDS), compensate=command("Undo", FIELDS)),
        *(
            task(name, after=["first"], forward=command("Do", FIELDS), compensate=command("Undo", FIELDS), keep=["id"])
            for name in names
        ),
        task("join", after=names, kind=Kind.PIVOT, forward=command("Do", FIELDS)),
        start_keep=["order_id", "amount"],
    )


def opened(record: str, data: Data) -> Opened:
    """A payload of a record type."""
    return Opened(payload=Payload(framed=b"\x00" * 60, encoding=CONFLUENT), type=record, data=data)


def run(saga: Definition, number: int, *, fails: bool = False) -> tuple[int, float]:
    """One saga from its start to its end: how many decisions, and how many seconds they took.

    With `fails` the pivot is rejected, and everything before it is undone.
    """
    saga_id = ids.saga_id("default", saga.name, f"o-{number}")
    state: State | None = None
    waiting: list[SendCommand] = []
    decisions, spent_s = 0, 0.0
    event: Start | Reply = Start(
        cause=Cause(message_id=f"m-{number}", type="start", source=Source(topic="in", partition=0, offset=number)),
        definition=saga.name,
        key=f"o-{number}",
        run=number,
        payload=opened("shop.OrderPlaced", START),
    )
    replied = opened("shop.Done", REPLY)
    while True:
        now = Now(decision_ms=1_000 + decisions, partition_ms=1_000 + decisions)
        begin = thread_time()
        decision = decide(saga_id, saga, state, event, now)
        spent_s += thread_time() - begin
        decisions += 1
        state = decision.state
        waiting += [action for action in decision.actions if isinstance(action, SendCommand)]
        if not waiting:
            return decisions, spent_s
        sent = waiting.pop(0)
        rejected = fails and saga.tasks[sent.address].kind is Kind.PIVOT
        event = Reply(
            cause=Cause(
                message_id=sent.command_id, type="reply", source=Source(topic="in", partition=0, offset=decisions)
            ),
            command_id=sent.command_id,
            outcome=Outcome.REJECTED if rejected else Outcome.SUCCEEDED,
            payload=replied,
        )


def measure(name: str, saga: Definition, sagas: int, *, fails: bool = False) -> None:
    """Print the best of many short rounds: what the code costs when nothing else runs beside it."""
    best_s, decisions = float("inf"), 0
    for _ in range(40):
        rounds = [run(saga, number, fails=fails) for number in range(sagas)]
        decisions = sum(count for count, _ in rounds)
        best_s = min(best_s, sum(spent_s for _, spent_s in rounds) / decisions)
    print(f"{name:28} {best_s * 1e6:7.1f} us per decide  ({decisions // sagas} decisions a saga)")


def main() -> None:
    """Measure, or profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true")
    if parser.parse_args().profile:
        profile = cProfile.Profile()
        profile.enable()
        for number in range(3_000):
            run(chain(3), number)
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    for length, sagas in ((3, 50), (20, 10), (200, 1)):
        measure(f"chain of {length}", chain(length), sagas)
        measure(f"chain of {length}, undone", chain(length), sagas, fails=True)
    measure("fan of 50", fan(50), 4)
    measure("fan of 50, undone", fan(50), 4, fails=True)


if __name__ == "__main__":
    main()
