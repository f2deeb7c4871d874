"""Fuzzed input through the very decoding, deciding and encoding that runs: no crash, no stall, each accounted for."""

import logging
from collections import Counter
from functools import partial
from random import Random
from typing import Any, Final

import structlog

from tests.fuzz import readers, texts
from tests.fuzz.makers import KINDS
from tests.fuzz.mutations import NAMES
from tests.fuzz.records import OUTCOMES, Found, Fuzz
from tests.fuzz.states import StateFuzz
from tests.prove.house import require
from tests.prove.simulation import workers

_CHUNK: Final = 20_000
_TEXTS_CHUNK: Final = 500
_ROUNDS_CHUNK: Final = 50
_READERS_CHUNK: Final = 5_000
_READ_OF: Final = 1_000
"""How many records make the backlog that is then read."""

_TOLD: Final = 5

_WANTED: Final = (
    "RecordDeadLettered",
    "SagaCompleted",
    "SagaCompensated",
    "SagaParked",
    "ReplyIgnored",
    "StartIgnored",
)


def prove(*, records: int, seed: int = 1) -> dict[str, Any]:
    """Fuzz `records` records of inbox and triggers, with the published definitions among them, and spoil states.

    Of definitions and schemas as people write them there are a hundredth as many, of rounds with spoiled states a
    thousandth; of commands and events for a service, and of records of the backlog, a tenth.

    Raises:
        ProofFailedError: one was lost, stalled a partition or broke a rule; what escapes as an exception ends it too.
    """
    answers, published, spoiled, wrong = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    problems: list[str] = []
    read = 0
    lists = max(1, records // 100 // _TEXTS_CHUNK)
    with workers(None) as pool:
        for found in pool.imap_unordered(_records, _chunks(records, seed)):
            read += found.records
            answers += found.answers
            wrong += found.wrong
            for kind, became in found.outcomes.items():
                outcomes[kind] += became
            published += found.definitions
            problems += found.problems
        for found in pool.imap_unordered(_states, _rounds(records, seed)):
            spoiled += found.answers
            problems += found.problems
        definitions, schemas, services, backlog = (Counter[str]() for _ in range(4))
        for each in pool.imap_unordered(partial(_texts, seed), range(lists)):
            definitions += each[0]
            schemas += each[1]
        for each in pool.imap_unordered(partial(_readers, seed), range(lists)):
            services += each[0]
            backlog += each[1]
    require(not problems, f"{len(problems)} problems: " + "\n".join(problems[:_TOLD]))
    require(definitions["accepted"] > 0 and schemas["accepted"] > 0, "no mutated definition or schema was right")
    accounted = sum(each.total() for each in outcomes.values())
    require(accounted == read >= records, f"{accounted} of {read} records are accounted for, {records} were asked for")
    missing = [f"no {one}" for one in _WANTED if not answers[one]]
    missing += [f"no {kind} {outcome}" for kind in KINDS for outcome in OUTCOMES[kind] if not outcomes[kind][outcome]]
    missing += [f"nothing wrong by {one}" for one in sorted(NAMES) if not wrong[one]]
    missing += [f"no published definition was {one}" for one in ("known", "of no use") if not published[one]]
    missing += [f"no partition {one} with a spoiled state" for one in ("stood still", "went on") if not spoiled[one]]
    missing += [f"nothing {one} at a service" for one in ("handled", "denied", "dead letter") if not services[one]]
    missing += [f"no record of the backlog {one}" for one in ("read", "unknown", "unreadable") if not backlog[one]]
    require(not missing, f"not provoked: {', '.join(missing)}")
    return {
        "records": read,
        "outcomes": {kind: dict(each.most_common()) for kind, each in outcomes.items()},
        "wrong": dict(wrong.most_common()),
        "transitions": dict(answers.most_common()),
        "published_definitions": dict(published),
        "rounds_with_spoiled_states": dict(spoiled),
        "definitions": dict(definitions),
        "schemas": dict(schemas),
        "commands_and_events_at_a_service": dict(services),
        "records_of_the_backlog": dict(backlog),
    }


def _rounds(records: int, seed: int) -> list[tuple[int, int]]:
    rounds = max(_ROUNDS_CHUNK, records // 1_000)
    return [(seed * 1_000_003 + number, _ROUNDS_CHUNK) for number in range(rounds // _ROUNDS_CHUNK)]


def _states(chunk: tuple[int, int]) -> Found:
    seed, rounds = chunk
    found = StateFuzz(seed).spoil(rounds)
    found.answers = Counter({one: found.answers[one] for one in ("stood still", "went on")})
    found.problems = [f"seed {seed}, spoiled states: {problem}" for problem in found.problems]
    return found


def _chunks(records: int, seed: int) -> list[tuple[int, int]]:
    return [
        (seed * 1_000_003 + number, min(_CHUNK, records - at)) for number, at in enumerate(range(0, records, _CHUNK))
    ]


def _records(chunk: tuple[int, int]) -> Found:
    seed, records = chunk
    found = Fuzz(seed).go(records)
    found.problems = [f"seed {seed}: {problem}" for problem in found.problems]
    return found


def _readers(seed: int, number: int) -> tuple[Counter[str], Counter[str]]:
    random, fuzz = Random(f"{seed}/{number}"), Fuzz(number)
    fuzz.go(_READ_OF)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    return (
        readers.services(random, _READERS_CHUNK),
        readers.backlog(random, fuzz.backlog, _READERS_CHUNK),
    )


def _texts(seed: int, number: int) -> tuple[Counter[str], Counter[str]]:
    random = Random(f"{seed}/{number}")
    return texts.definitions(random, _TEXTS_CHUNK), texts.schemas(random, _TEXTS_CHUNK)
