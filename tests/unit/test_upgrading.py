"""When the engine level may be raised, and what a client id tells."""

from __future__ import annotations

import re

import pytest

from sagakit.app.published import NamespaceRecord
from sagakit.app.upgrading import Instance, UpgradeStatus, _instance, instance_client_id
from sagakit.core.turn import ENGINE_LEVEL

NEW = Instance(name="new", host="/10.0.0.1", level=2)
OLD = Instance(name="old", host="/10.0.0.2", level=1)
STRANGER = Instance(name="rdkafka", host="/10.0.0.3", level=None)


def status(*instances: Instance, settled: bool = True, level: int = 1) -> UpgradeStatus:
    namespace = NamespaceRecord(namespace="shop", partitions=4, engine_level=level, created_at_ms=0)
    return UpgradeStatus(namespace=namespace, release_level=2, instances=instances, settled=settled)


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        (status(NEW), 2, None),
        (status(), 2, None),
        (status(OLD, NEW), 1, None),
        (status(NEW, level=2), 2, None),
        (status(NEW, OLD), 2, r"old \(up to 1, at /10\.0\.0\.2\)"),
        (status(NEW, STRANGER), 2, "rdkafka.*does not say"),
        (status(NEW, settled=False), 2, "at rest"),
        (status(NEW), 3, "runs up to engine level 2"),
        (status(NEW, level=2), 1, "never goes back"),
    ],
)
def test_the_level_is_raised_only_where_everybody_runs_it(found: UpgradeStatus, wanted: int, said: str | None) -> None:
    refusal = found.refusal(wanted)
    if said is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert re.search(said, refusal), refusal


def test_a_client_id_tells_the_instance_and_its_level() -> None:
    assert _instance(instance_client_id("pod-7.a"), "h") == Instance(name="pod-7.a", host="h", level=ENGINE_LEVEL)
    assert _instance(instance_client_id("a b/ü"), "h").name == "a_b__", "what makes a bad name of a metric is left out"
    assert _instance("rdkafka", "h") == Instance(name="rdkafka", host="h", level=None)
