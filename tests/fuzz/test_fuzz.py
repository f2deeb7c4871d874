"""The small form of `make prove PART=fuzz`."""

from __future__ import annotations

from random import Random

from tests.fuzz import texts
from tests.fuzz.mutations import NAMES
from tests.fuzz.records import OUTCOMES, Fuzz
from tests.fuzz.states import StateFuzz


def test_every_fuzzed_record_is_accounted_for() -> None:
    runs = [Fuzz(seed).go(4_000) for seed in range(3)]
    assert [problem for found in runs for problem in found.problems] == []
    assert sum(each.total() for found in runs for each in found.outcomes.values()) == 12_000
    missing = [
        f"no {kind} {outcome}"
        for kind, outcomes in OUTCOMES.items()
        for outcome in outcomes
        if not any(found.outcomes[kind][outcome] for found in runs)
    ]
    assert missing == []
    assert sorted(NAMES - set().union(*(found.wrong for found in runs))) == []
    assert min(sum(found.definitions[name] for found in runs) for name in ("known", "of no use")) > 0


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
