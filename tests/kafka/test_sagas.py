"""Sagas on a real Kafka with real processes: killed, stopped, restarted, cut off, fed with rubbish. The small form of
`make prove`: each test fails if nothing was provoked that would have shown what it is about.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sagakit.core.placement import partition_of
from sagakit.ports.log import Outgoing
from sagakit.testing.fixtures import start_or_skip
from tests.prove import (
    away,
    bad_input,
    failover,
    fuzz_kafka,
    kills,
    outage,
    restarts,
    starts,
    triggers,
    upgrade,
    zombies,
)
from tests.prove.evidence import examine
from tests.prove.house import House, ProofFailedError, describe_house
from tests.prove.shop import Cast, Shop

pytestmark = [
    pytest.mark.prove,
    pytest.mark.kafka,
    pytest.mark.registry,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

KILLS = int(os.environ.get("SAGAKIT_KILLS", "5"))


@pytest.fixture(scope="module")
def house(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A broker and a registry of this module's own, since they are killed."""
    yield from _running(pytestconfig, tmp_path_factory.mktemp("house"), 1)


@pytest.fixture
def house_of_three(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Three brokers, for as long as one test."""
    yield from _running(pytestconfig, tmp_path_factory.mktemp("house"), 3)


def _running(pytestconfig: pytest.Config, folder: Path, brokers: int) -> Iterator[House]:
    described = describe_house(folder, brokers)
    start_or_skip(described.kafka, "Kafka", pytestconfig)
    try:
        start_or_skip(described.registry, "a schema registry", pytestconfig)
        try:
            yield described
        finally:
            described.registry.stop()
    finally:
        described.kafka.stop()
        shutil.rmtree(folder / "kafka", ignore_errors=True)


@pytest.fixture(scope="class")
def shop(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """An open shop that several tests use one after the other; whatever each does, the books must balance."""
    with Shop(house, tmp_path_factory.mktemp("shop") / "shop", _prefix(), Cast()) as opened:
        yield opened


def _prefix() -> str:
    return f"proof-{uuid.uuid4().hex[:8]}."


@pytest.mark.timeout(120 + 15 * KILLS)
def test_killed_anywhere_nothing_is_lost_and_nothing_happens_twice(house: House, tmp_path: Path) -> None:
    """Rule 16: what came of a commit may be unknown."""
    counts = kills.prove(house, tmp_path / "shop", prefix=_prefix(), kills=KILLS)
    assert counts["kills"] >= KILLS
    assert counts["at"].keys() >= set(kills.PLACES[: min(KILLS, len(kills.PLACES))])
    assert min(counts["completed"], counts["compensated"]) > 0


class TestOneShop:
    """One after the other in one shop, that is closed before other proofs begin."""

    def test_a_published_version_runs_at_once_and_repeated_events_start_nothing(self, shop: Shop) -> None:
        """Rule 9: a version starts where it was published, and everybody knows it by then."""
        triggers.publish(shop, 2, orders=30)
        repeated = triggers.send_everything_again(shop)
        assert min(repeated.values()) > 0
        examine(shop)

    def test_a_zombie_that_wakes_within_its_transaction_changes_nothing(self, shop: Shop) -> None:
        """Rules 2, 3, 16 and 22 of exactly-once, from the outside."""
        zombies.sleep_and_wake(shop, "orchestrator.transaction-open", seed=1, after=20)
        examine(shop)

    def test_everybody_is_restarted_in_turn(self, shop: Shop) -> None:
        restarts.roll(shop, "payments")
        shop.settle()
        examine(shop)

    def test_what_the_proofs_compare_with_finds_a_forged_effect_and_a_lost_state(self, shop: Shop) -> None:
        """The last one in this shop: it spoils the books."""
        saga_id = shop.place(1)[0].saga_id
        shop.settle()
        with closing(sqlite3.connect(shop.ledgers / "shipping.sqlite", isolation_level=None)) as books:
            books.execute("INSERT INTO effects VALUES ('forged', 'effect', ?, NULL, '{}', 0)", (saga_id,))
        home = partition_of(saga_id.encode(), shop.settings.partitions)
        shop.write(Outgoing(shop.topics.state, home, saga_id.encode(), None, ()))
        with pytest.raises(ProofFailedError) as found:
            examine(shop)
        said = str(found.value)
        assert f"{saga_id}: the state topic holds None" in said
        assert f"{saga_id} at shipping" in said


def test_one_of_three_brokers_dies_under_load(house_of_three: House, tmp_path: Path) -> None:
    with Shop(house_of_three, tmp_path / "shop", _prefix(), Cast()) as shop:
        restarts.restart_broker(shop, 2)
        assert examine(shop)["sagas"] >= 60


def test_starts_that_waited_three_dedupe_windows_all_run_once(house: House, tmp_path: Path) -> None:
    """Rule 15: a start that comes again runs once, and one that waited runs."""
    counts = starts.prove(house, tmp_path / "shop", prefix=_prefix(), sagas=10_000)
    assert counts["sagas"] >= 10_000


def test_after_an_outage_the_replies_beat_the_timers(house: House, tmp_path: Path) -> None:
    """Rule 14: a reply in the log beats its timeout."""
    counts = outage.prove(house, tmp_path / "shop", prefix=_prefix(), sagas=60)
    assert counts["completed"] == 60


def test_what_waits_for_an_absent_participant_is_not_undone(house: House, tmp_path: Path) -> None:
    counts = away.prove(house, tmp_path / "away", prefix=_prefix(), who="participant", times=away.Times(2, 7, 2))
    assert counts["steps_timed_out"] > 0


def test_two_releases_run_beside_each_other_until_the_upgrade_is_final(tmp_path: Path) -> None:
    counts = upgrade.prove(tmp_path / "upgrade", orders=8)
    assert min(counts["ended_at_level"].values()) > 0


def test_the_survivor_takes_over_what_was_in_flight(house: House, tmp_path: Path) -> None:
    """The open transaction of the dead one is ended, and holds nobody up for the whole of its timeout."""
    counts = failover.prove(house, tmp_path / "shop", prefix=_prefix(), sizes=[300], rounds=1)["300 sagas"]
    assert counts["fenced"] == 1
    assert counts["completed"] == counts["answered_after"] == 100


def test_bad_input_and_absent_servers_have_their_answers(house: House, tmp_path: Path) -> None:
    counts = bad_input.prove(house, tmp_path / "shop", prefix=_prefix(), rounds=1)
    assert counts["parked"] == 3


def test_fuzzed_records_are_each_accounted_for(house: House, tmp_path: Path) -> None:
    counts = fuzz_kafka.prove(house, tmp_path / "shop", prefix=_prefix(), records=600)
    assert counts["records"] == 600
