"""A kill counts only where the ledger shows that it hit what it was meant to hit."""

import pytest

from sagakit.demo.deaths import unproven
from sagakit.demo.stage import Death
from services.audit import Call, LedgerRows

BETWEEN = "participant.between-effect-and-reply"
IN_HANDLER = "participant.in-handler"
DEAD, NEXT = 7, 8


def ledger(*rows: tuple[str, int]) -> dict[str, LedgerRows]:
    calls = tuple(
        Call(number, what, "s", "charge", "forward", 1, "c", "k", None, process, 0)
        for number, (what, process) in enumerate(rows, start=1)
    )
    return {"payments": LedgerRows(service="payments", calls=calls, effects=())}


def death(point: str) -> Death:
    return Death(who="payments", process_id=DEAD, point=point, at_ms=0, detail="c")


@pytest.mark.parametrize(
    ("point", "rows"),
    [
        (IN_HANDLER, [("entry", DEAD), ("entry", NEXT), ("effect", NEXT)]),
        ("participant.in-local-transaction", [("entry", DEAD), ("entry", NEXT), ("effect", NEXT)]),
        (BETWEEN, [("entry", DEAD), ("effect", DEAD), ("entry", NEXT)]),
        (BETWEEN, [("entry", DEAD), ("undo", DEAD), ("entry", NEXT)]),
        ("orchestrator.in-commit", []),
    ],
)
def test_a_death_that_was_what_it_says(point: str, rows: list[tuple[str, int]]) -> None:
    assert unproven([death(point)], ledger(*rows), ()) == []


@pytest.mark.parametrize(
    ("point", "rows", "doubt"),
    [
        (IN_HANDLER, [], "was not in its handler"),
        (IN_HANDLER, [("entry", NEXT), ("effect", NEXT)], "was not in its handler"),
        (IN_HANDLER, [("entry", DEAD), ("effect", DEAD), ("entry", NEXT)], "had taken effect already"),
        (IN_HANDLER, [("entry", DEAD)], "was never taken up again"),
        (BETWEEN, [("entry", DEAD), ("entry", NEXT), ("effect", NEXT)], "had not taken effect"),
        (BETWEEN, [("entry", DEAD), ("rejection", DEAD), ("entry", NEXT)], "had not taken effect"),
        (BETWEEN, [("entry", NEXT), ("entry", DEAD), ("effect", DEAD)], "was never taken up again"),
    ],
)
def test_a_death_that_was_not_what_it_says(point: str, rows: list[tuple[str, int]], doubt: str) -> None:
    (told,) = unproven([death(point)], ledger(*rows), ())
    assert told.endswith(doubt)


def test_a_command_that_had_expired_is_answered_by_the_next_process_without_its_handler() -> None:
    assert unproven([death(IN_HANDLER)], ledger(("entry", DEAD)), {"c"}) == []
