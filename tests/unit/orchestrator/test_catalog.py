"""Which version runs, what starts it, and what a record that cannot be used does not do."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from sagakit.contracts.denials import FINAL_AFTER_MS
from sagakit.contracts.own import OwnRecords
from sagakit.core.turn import ENGINE_LEVEL, ENGINE_LEVELS
from sagakit.language.published import Namespace
from sagakit.orchestrator.blocked import PartitionBlockedError
from sagakit.orchestrator.catalog import Catalog
from sagakit.ports.log import LogUnavailableError, Record, TopicPartition
from tests.simulation import shop
from tests.unit.orchestrator.bench import Bench


class Topic:
    """The definitions topic."""

    def __init__(self) -> None:
        self.new: list[Record] = []
        self.available = True

    def read_new(self) -> Sequence[Record]:
        if not self.available:
            raise LogUnavailableError("not now")
        records, self.new = self.new, []
        return records


def record(value: bytes | None, key: str = "k") -> Record:
    return Record("definitions", 0, 0, 0, key.encode(), value, ())


def definition(name: str, version: int, first: int | None = None, **fields: object) -> Record:
    bundle = shop.published(name, version)
    offsets = [] if first is None else [{"topic": shop.ORDERS, "partition": 0, "offset": first}]
    own = {
        "name": name,
        "version": version,
        "canonical": bundle.canonical,
        "hash": bundle.hash,
        "source": bundle.source,
        "schemas": dict(bundle.schemas),
        "first_offsets": offsets,
        "command_partitions": {},
        "published_at_ms": 0,
        "published_by": None,
    }
    return record(shop.own_records().encode("PublishedDefinition", own | fields), f"{name}/{version}")


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
def catalog(topic: Topic) -> Catalog:
    return Catalog(topic, shop.own_records(), lambda name: name, lambda: 0)


def started(catalog: Catalog, offset: int, partition: int = 0) -> set[tuple[str, int]]:
    found = catalog.triggered(TopicPartition(shop.ORDERS, partition), offset)
    return {(one.definition.name, one.definition.version) for one in found}


def test_a_new_saga_runs_the_newest_version_and_a_live_one_its_own(topic: Topic, catalog: Catalog) -> None:
    topic.new = [definition("order", 2), definition("order", 1)]
    assert catalog.refresh()
    latest = catalog.latest("order")
    assert latest is not None
    assert latest.definition.version == 2
    assert catalog.version("order", 1).definition.version == 1
    assert catalog.latest("nobody") is None
    assert not catalog.refresh()


def test_a_start_runs_the_newest_version_that_starts_with_its_record(topic: Topic, catalog: Catalog) -> None:
    other = json.loads(shop.published("order", 2).canonical) | {"start": "sim.Hint", "key": "start.text"}
    topic.new = [definition("order", 1), definition("order", 2, canonical=json.dumps(other), schemas=shop.SCHEMAS)]
    catalog.refresh()
    by_placed, by_hint = catalog.latest("order", "sim.Placed"), catalog.latest("order", "sim.Hint")
    assert by_placed is not None
    assert by_hint is not None
    assert (by_placed.definition.version, by_hint.definition.version) == (1, 2)
    assert catalog.latest("order", "sim.Ended") is None


def test_an_event_starts_each_definition_by_the_newest_version_that_is_valid_for_it(
    topic: Topic, catalog: Catalog
) -> None:
    """Rule 9: a version starts where it was published, and everybody knows it by then."""
    topic.new = [definition("order", 1, 5), definition("order", 2, 8), definition("audit", 1, 7)]
    catalog.refresh()
    assert started(catalog, 4) == set()
    assert started(catalog, 6) == {("order", 1)}
    assert started(catalog, 7) == {("order", 1), ("audit", 1)}
    assert started(catalog, 8) == {("order", 2), ("audit", 1)}
    assert catalog.first_trigger_offset(TopicPartition(shop.ORDERS, 0)) == 5
    assert catalog.trigger_topics() == {shop.ORDERS}


def test_a_partition_that_came_after_the_publication_is_valid_from_its_start(topic: Topic, catalog: Catalog) -> None:
    """Rule 9: a version starts where it was published, and everybody knows it by then."""
    topic.new = [definition("order", 1, 5)]
    catalog.refresh()
    assert started(catalog, 0, partition=3) == {("order", 1)}
    assert catalog.first_trigger_offset(TopicPartition(shop.ORDERS, 3)) == 0


def test_the_namespace_record_is_known(topic: Topic, catalog: Catalog) -> None:
    fields = {"namespace": "sim", "partitions": 4, "engine_level": 1, "created_at_ms": 0}
    topic.new = [record(shop.own_records().encode("NamespaceRecord", fields))]
    catalog.refresh()
    assert catalog.namespace == Namespace(partitions=4, engine_level=1)


def test_runs_begin_at_the_level_of_the_namespace_and_above_the_releases_own_nothing_is_decided(
    topic: Topic, catalog: Catalog
) -> None:
    assert catalog.level() == ENGINE_LEVEL
    fields = {"namespace": "sim", "partitions": 4, "engine_level": ENGINE_LEVELS[0], "created_at_ms": 0}
    topic.new = [record(shop.own_records().encode("NamespaceRecord", fields))]
    catalog.refresh()
    assert catalog.level() == ENGINE_LEVELS[0]
    topic.new = [record(shop.own_records().encode("NamespaceRecord", fields | {"engine_level": ENGINE_LEVEL + 1}))]
    catalog.refresh()
    with pytest.raises(PartitionBlockedError, match=f"the namespace is at engine level {ENGINE_LEVEL + 1}"):
        catalog.level()


@pytest.mark.parametrize(
    "unusable",
    [
        record(b"no frame"),
        record(None),
        record(shop.own_records().encode("Expired", {})),
        definition("order", 2, command_partitions={"stock": 0}),
        definition("order", 2, first_offsets=[{"topic": "x", "partition": 0, "offset": -2}]),
        definition("order", 2, first_offsets=[{"topic": "x", "partition": -1, "offset": 0}]),
        definition("order", 2, canonical=shop.published("audit", 1).canonical),
        definition("order", 2, canonical="no JSON"),
        definition("order", 2, canonical="[]"),
        definition("order", 2, canonical="{}"),
        definition("order", 2, schemas={}),
        definition("order", 2, schemas=dict.fromkeys(shop.SCHEMAS, "no schema")),
        definition("order", 2, schemas=dict.fromkeys(shop.SCHEMAS, '"string"')),
        definition("order", 2, canonical=shop.published("order", 1).canonical.replace("start.order_id", "start.(")),
        definition("order", 2, canonical=shop.published("order", 1).canonical.replace('"reserve"', '"Reserve!"')),
    ],
    ids=range(15),
)
def test_a_record_that_cannot_be_used_hides_no_other(topic: Topic, catalog: Catalog, unusable: Record) -> None:
    topic.new = [definition("order", 1), unusable, definition("audit", 1)]
    catalog.refresh()
    latest = catalog.latest("order")
    assert latest is not None
    assert latest.definition.version == 1
    assert catalog.latest("audit") is not None


def test_a_definition_that_could_not_be_read_for_want_of_the_registry_is_read_later(topic: Topic) -> None:
    registry = shop.FlakyRegistry()
    registry.available = False
    catalog = Catalog(topic, OwnRecords(registry), lambda name: name, lambda: 0)
    topic.new = [definition("order", 1), definition("order", 2)]
    with pytest.raises(PartitionBlockedError, match="does not answer") as raised:
        catalog.refresh()
    assert raised.value.transient
    registry.available = True
    topic.new = [definition("audit", 1)]
    assert catalog.refresh()
    assert [catalog.version(*one).definition.version for one in (("order", 1), ("order", 2), ("audit", 1))] == [1, 2, 1]


def test_a_definition_is_not_given_up_because_a_replica_of_the_registry_has_not_heard_of_its_schema(
    topic: Topic,
) -> None:
    """Rule 10: a denial counts when it lasts; until then nothing is decided that the definition may change."""
    new = definition("order", 1)
    registry, now_ms = shop.FlakyRegistry(), 0
    registry.denied.add(int.from_bytes((new.value or b"")[1:5], "big"))
    catalog = Catalog(topic, OwnRecords(registry), lambda name: name, lambda: now_ms)
    topic.new = [new]
    for at_ms in (0, FINAL_AFTER_MS - 1):
        now_ms = at_ms
        with pytest.raises(PartitionBlockedError, match="asking again") as raised:
            catalog.refresh()
        assert raised.value.transient
    registry.denied.clear()
    assert catalog.refresh()
    assert catalog.latest("order") is not None


def test_a_definition_whose_schema_nobody_knows_holds_up_the_others_for_a_moment_only(topic: Topic) -> None:
    now_ms = 0
    catalog = Catalog(topic, OwnRecords(shop.FlakyRegistry()), lambda name: name, lambda: now_ms)
    topic.new = [record(b"\x00\x7f\xff\xff\xff{}"), definition("order", 1)]
    with pytest.raises(PartitionBlockedError):
        catalog.refresh()
    now_ms = FINAL_AFTER_MS
    assert catalog.refresh()
    assert catalog.latest("order") is not None


def test_a_topic_that_cannot_be_read_to_its_end_blocks_what_depends_on_it(topic: Topic, catalog: Catalog) -> None:
    """Rule 9: a version starts where it was published, and everybody knows it by then."""
    topic.available = False
    with pytest.raises(PartitionBlockedError) as raised:
        catalog.refresh()
    assert raised.value.transient


def test_a_version_that_is_asked_for_is_looked_for_before_it_is_missed(topic: Topic, catalog: Catalog) -> None:
    topic.new = [definition("order", 2)]
    assert catalog.version("order", 2).definition.version == 2
    with pytest.raises(PartitionBlockedError, match="publish it again") as raised:
        catalog.version("order", 1)
    assert not raised.value.transient


def test_what_was_published_before_an_event_was_is_known_when_it_is_decided() -> None:
    """Rule 9: no waiting time: the definitions are read to their end after the poll that brought the event."""
    bench = Bench(("order", 1))
    bench.cycles()
    bench.publish("audit", 1, valid_from=0)
    bench.place()
    bench.cycles(3)
    assert bench.kinds(bench.saga(definition="audit"))[:1] == ["SagaStarted"]


def test_rule_6_a_saga_goes_by_the_partitions_that_its_commands_had_when_it_was_published() -> None:
    """Rule 6: the topics have grown since: a command and what undoes it must still share a partition."""
    bench = Bench(("order", 1))
    for number in range(20):
        bench.start(f"o-{number}")
    bench.cycles()
    sent = [record for service in shop.SERVICES for record in bench.cluster.written(bench.topics.commands(service))]
    assert len(sent) >= 20
    assert {record.partition for record in sent} == {0}
