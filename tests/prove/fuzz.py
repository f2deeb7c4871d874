"""Fuzzed input through the very decoding, deciding and encoding that runs: no crash, no stall, each accounted for."""

from collections import Counter
from functools import partial
from random import Random
from typing import Any, Final

from tests.fuzz import texts
from tests.fuzz.records import Found, Fuzz
from tests.prove.house import require
from tests.prove.simulation import workers

_CHUNK: Final = 20_000
_TEXTS_CHUNK: Final = 500
_TOLD: Final = 5


def prove(*, records: int, seed: int = 1) -> dict[str, Any]:
    """Fuzz `records` inbox records, and a hundredth as many definitions and schemas.

    Raises:
        ProofFailedError: one was lost, stalled a partition or broke a rule; what escapes as an exception ends it too.
    """
    answers: Counter[str] = Counter()
    problems: list[str] = []
    read = 0
    lists = max(1, records // 100 // _TEXTS_CHUNK)
    with workers(None) as pool:
        for found in pool.imap_unordered(_records, _chunks(records, seed)):
            read += found.records
            answers += found.answers
            problems += found.problems
        definitions, schemas = Counter[str](), Counter[str]()
        for each in pool.imap_unordered(partial(_texts, seed), range(lists)):
            definitions += each[0]
            schemas += each[1]
    require(not problems, f"{len(problems)} problems: " + "\n".join(problems[:_TOLD]))
    require(definitions["accepted"] > 0 and schemas["accepted"] > 0, "no mutated definition or schema was right")
    return {
        "records": read,
        "transitions": dict(answers.most_common()),
        "definitions": dict(definitions),
        "schemas": dict(schemas),
    }


def _chunks(records: int, seed: int) -> list[tuple[int, int]]:
    return [
        (seed * 1_000_003 + number, min(_CHUNK, records - at)) for number, at in enumerate(range(0, records, _CHUNK))
    ]


def _records(chunk: tuple[int, int]) -> Found:
    seed, records = chunk
    found = Fuzz(seed).go(records)
    found.problems = [f"seed {seed}: {problem}" for problem in found.problems]
    return found


def _texts(seed: int, number: int) -> tuple[Counter[str], Counter[str]]:
    random = Random(f"{seed}/{number}")
    return texts.definitions(random, _TEXTS_CHUNK), texts.schemas(random, _TEXTS_CHUNK)
