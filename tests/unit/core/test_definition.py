"""What a definition derives from its tasks, and what expressions read of a payload."""

from dataclasses import replace
from typing import Any

import pytest

from sagakit.core.definition import Kind
from sagakit.core.values import Data
from sagakit.proving.definitions import definition, task
from tests.unit.core.story import opened

ORDER = definition(
    task("reserve"),
    task("ship", after=["reserve"], kind=Kind.PIVOT),
    task("notify", after=["reserve"]),
    task("archive", after=["ship", "notify"], kind=Kind.RETRIABLE),
)


def test_what_is_derived_from_the_tasks() -> None:
    assert ORDER.dependents == {
        "reserve": ("ship", "notify"),
        "ship": ("archive",),
        "notify": ("archive",),
        "archive": (),
    }
    assert ORDER.blank == {"reserve": {}, "ship": {}, "notify": {}, "archive": {}}
    assert {type(name) for name in ORDER.blank} == {str}, "plain strings: libraries are picky"
    assert ORDER.pivots == ("ship",)
    assert [one.address for one in ORDER.backwards] == ["archive", "notify", "ship", "reserve"]


@pytest.mark.parametrize("derived", ["dependents", "blank", "pivots", "backwards"])
def test_what_is_derived_cannot_be_given(derived: str) -> None:
    given: dict[str, Any] = {derived: getattr(ORDER, derived)}
    with pytest.raises((TypeError, ValueError), match=derived):
        replace(ORDER, **given)


def test_data_of_an_older_writer_is_completed_by_its_own_types_resolution() -> None:
    def completed(data: Data, /) -> Data:
        return {"gift": False, **data}

    resolving = replace(ORDER, resolutions={"shop.OrderPlaced": completed})
    assert resolving.data_of(opened("shop.OrderPlaced", {"id": 1})) == {"gift": False, "id": 1}
    assert resolving.data_of(opened("shop.Reserved", {"id": 1})) == {"id": 1}
    assert resolving.data_of(None) == {}
