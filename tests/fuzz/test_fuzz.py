"""The small form of `make prove PART=fuzz`."""

from __future__ import annotations

from random import Random

from sagakit.participants.answers import AnswerKind
from tests.fuzz import readers, texts
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


def test_a_service_has_an_answer_to_every_fuzzed_command_and_event() -> None:
    found = readers.services(Random(1), 3_000)
    kinds = (
        "handled",
        "denied",
        "nobody's",
        *(kind.value for kind in AnswerKind if kind.name != "SHORTENED_DEAD_LETTER"),
    )
    assert [one for one in kinds if not found[one]] == []


def test_a_fuzzed_record_of_the_backlog_is_read_or_refused() -> None:
    fuzz = Fuzz(7)
    assert fuzz.go(1_000).problems == []
    found = readers.backlog(Random(1), fuzz.backlog, 3_000)
    assert min(found[one] for one in ("read", "unknown", "unreadable")) > 0, found
