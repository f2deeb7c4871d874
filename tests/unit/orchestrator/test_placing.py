"""Where commands go: by the partition count of the time their definition was published, whatever the topic has now."""

from __future__ import annotations

import pytest

from sagakit.core.placement import partition_of
from sagakit.ports.log import TopicPartition
from tests.simulation import shop
from tests.unit.orchestrator.bench import Bench


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_command_goes_by_the_recorded_count(count: int) -> None:
    """Fewer than the inbox has, as many, and more: the topics themselves have three."""
    bench = Bench(partitions=2)
    bench.publish("order", 2, command_partitions=dict.fromkeys(shop.SERVICES, count))
    wanted = {saga_id: partition_of(saga_id.encode(), count) for saga_id in (bench.start(f"o-{n}") for n in range(12))}
    bench.cycles()
    found = {
        (record.key or b"").decode(): partition
        for service in shop.SERVICES
        for partition in range(3)
        for record in bench.cluster.logs[TopicPartition(bench.topics.commands(service), partition)].read(0, 1_000)[0]
    }
    assert found == wanted
