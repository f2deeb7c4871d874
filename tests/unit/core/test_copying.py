"""Copies are what `dataclasses.replace` would give."""

from dataclasses import dataclass, replace

import pytest

from sagakit.core.copying import Copier


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing(Base):
    second: str
    third: tuple[int, ...] = ()


@pytest.mark.parametrize("changes", [{}, {"first": 2}, {"second": "y", "third": (1,)}])
def test_a_copy_is_what_replace_gives_and_leaves_the_original(changes: dict[str, object]) -> None:
    one = Thing(first=1, second="x")
    copy = Copier(Thing)(one, **changes)
    assert copy == replace(one, **changes)  # type: ignore[arg-type]  # any of the fields
    assert one == Thing(first=1, second="x")


def test_a_change_of_no_field_is_refused() -> None:
    with pytest.raises(KeyError):
        Copier(Thing)(Thing(first=1, second="x"), fourth=4)
