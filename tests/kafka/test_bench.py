"""The benchmark itself: what it runs ends, and it takes its own figures apart rightly. No time is asserted."""

from __future__ import annotations

import os

import pytest

from sagakit.testing.kafka import KafkaCluster, KafkaServer
from tests.bench import clients, curves, engine, floor, split
from tests.bench.loads import Load
from tests.bench.roles import Site
from tests.bench.split import Span

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def site(kafka: KafkaServer) -> Site:
    return Site(kafka.bootstrap, kafka.process(1).pid if isinstance(kafka, KafkaCluster) else os.getpid())


def test_sagas_of_another_kind_run_at_a_steady_rate_beside_those_that_wait(site: Site) -> None:
    load = Load(steps=2, payload_bytes=1_000, partitions=2, orchestrators=2, standing=50)
    found = engine.measure(site, 30, load, per_s=200.0)
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_a_saturated_run_tells_what_each_process_cost(site: Site) -> None:
    found = floor.measure(site, 2_000, latency=False)
    parts = ("orchestrator_cpu_us", "participants_cpu_us", "broker_cpu_us")
    assert found["sagas_per_s"] > 0
    assert found["all_cpu_us"] == pytest.approx(sum(found[name] for name in parts))
    assert found["all_cpu_us"] > 0


def test_a_saga_alone_is_taken_apart(site: Site) -> None:
    found = split.measure(site, 10)
    assert found["all: median ms"] > found["decide: median ms"] > 0
    assert found["end: median ms"] > 0


def test_each_saga_gets_the_parts_that_lie_within_it() -> None:
    spans = [
        Span("decide", 0.5, 0.6),  # before the first
        Span("decide", 1.1, 1.2),
        Span("end", 1.2, 1.5),
        Span("end", 2.9, 3.5),  # goes on after its saga's end
        Span("decide", 9.0, 9.1),  # after the last
    ]
    found = split.split([(1.0, 2.0), (2.5, 3.0)], spans)
    assert found["all: median ms"] == pytest.approx(750)
    assert found["decide: median ms"] == pytest.approx(50)
    assert found["end: slowest 2 %, mean ms"] == pytest.approx(300)
    assert found["on the way: slowest 2 %, mean ms"] == pytest.approx(600)


def test_every_point_of_the_curves_can_be_made() -> None:
    for curve in curves.curves(100, 1_000_000).values():
        assert len(curve.points) >= 3
        for x, load, sagas in curve.points:
            assert load.definition.startswith(("saga: row-of-", "# The saga"))
            assert curve.size(x) > 0 < sagas


def test_percentiles_are_of_what_was_measured() -> None:
    assert clients.percentiles([float(one) for one in range(1, 101)]) == {"p50_ms": 51, "p90_ms": 91, "p99_ms": 100}
