"""When it is final that the registry denies a schema id."""

from __future__ import annotations

import pytest

from sagakit.contracts.denials import FINAL_AFTER_MS, Denials
from sagakit.contracts.framing import FramingError, frame, schema_id_of


def test_a_denial_is_final_once_it_has_lasted() -> None:
    """Rule 10: a registry that is away makes no poison."""
    denials = Denials()
    assert [denials.is_final(7, at_ms) for at_ms in (5_000, 5_100, 5_000 + FINAL_AFTER_MS)] == [False, False, True]
    assert not denials.is_final(8, 6_500), "each id has its own time"


def test_while_records_with_the_id_come_it_stays_final_and_is_forgotten_afterwards() -> None:
    denials = Denials()
    denials.is_final(7, 0)
    assert all(denials.is_final(7, at_ms) for at_ms in range(FINAL_AFTER_MS, 600_000, 30_000))
    assert not denials.is_final(7, 900_000)


def test_a_clock_that_goes_back_makes_nothing_final() -> None:
    denials = Denials()
    denials.is_final(7, 50_000)
    assert not denials.is_final(7, 10_000)


def test_a_flood_of_ids_does_not_grow_without_bound() -> None:
    denials = Denials()
    for number in range(5_000):
        denials.is_final(number, number * 1_000)
    assert len(denials._known) < 1_100


@pytest.mark.parametrize("schema_id", [2**31, 2**32 - 1])
def test_an_id_that_no_registry_gives_is_not_asked_for(schema_id: int) -> None:
    """Asked for such an id, a registry answered as if it were away, and the partition stood still for ever."""
    with pytest.raises(FramingError, match="beyond what registries give"):
        schema_id_of(frame(schema_id, b"x"))
