"""The small form of `make prove PART=fuzz`."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz import texts
from tests.fuzz.records import Fuzz
from tests.fuzz.states import StateFuzz


@pytest.mark.parametrize("seed", range(3))
def test_every_fuzzed_record_is_accounted_for(seed: int) -> None:
    found = Fuzz(seed).go(4_000)
    assert found.problems == []
    assert found.records >= 4_000
    assert min(found.answers[name] for name in ("RecordDeadLettered", "SagaCompleted", "SagaParked")) > 0
    assert min(found.definitions[name] for name in ("known", "of no use")) > 0


def test_a_spoiled_state_is_gone_on_with_or_holds_its_partition() -> None:
    found = StateFuzz(1).spoil(20)
    assert found.problems == []
    assert min(found.answers[name] for name in ("stood still", "went on")) > 0


def test_a_fuzzed_definition_has_findings_or_compiles() -> None:
    found = texts.definitions(Random(1), 500)
    assert min(found[name] for name in ("not parsed", "refused", "accepted")) > 0


def test_a_fuzzed_schema_is_refused_or_compiles() -> None:
    found = texts.schemas(Random(1), 500)
    assert min(found[name] for name in ("refused", "accepted")) > 0
