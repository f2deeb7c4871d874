"""How the cost grows: with steps, payload, partitions, sagas in flight and instances. A line, or where it bends."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple
from uuid import uuid4

from tests.bench import engine
from tests.bench.loads import ORDERS, Load
from tests.bench.roles import CpuMeter, Pids, Site, once, running

_IDLE_S: Final = 10.0


class Curve(NamedTuple):
    """Loads that differ in one figure, `x`; `size` is what a run's cost is divided by, to see whether it is a line.

    `sagas` is how many run at each, so that no point takes long.
    """

    points: Sequence[tuple[float, Load, int]]
    size: Callable[[float], float]
    unit: str


def curves(sagas: int, standing: int) -> Mapping[str, Curve]:
    """The curves of a full run, with so many sagas at most at a point, and at most so many waiting ones."""
    return {
        "steps": Curve(
            [(n, Load(steps=n), max(200, sagas // n)) for n in (1, 3, 10, 30)], lambda steps: steps + 1, "step"
        ),
        "payload": Curve(
            [(n, Load(payload_bytes=n), max(200, sagas * 200 // (n + 200))) for n in (200, 1_000, 10_000, 100_000)],
            lambda size: 1.0,
            "saga",
        ),
        "partitions": Curve([(n, Load(partitions=n), sagas) for n in (1, 4, 16, 64)], lambda partitions: 1.0, "saga"),
        "in-flight": Curve(
            [(n, Load(standing=n), sagas) for n in (1, 1_000, 10_000, 100_000, 1_000_000) if n <= standing],
            lambda waiting: 1.0,
            "saga",
        ),
        "instances": Curve([(n, Load(orchestrators=n), sagas) for n in (1, 2, 3)], lambda instances: 1.0, "saga"),
    }


def measure(site: Site, curve: Curve) -> list[dict[str, float]]:
    """Each point: sagas per second, CPU per saga, and orchestrator and broker CPU per unit of size."""
    rows = []
    for x, load, sagas in curve.points:
        found = engine.measure(site, sagas, load)
        per_unit = (found["orchestrator_cpu_us"] + found["broker_cpu_us"]) / curve.size(x)
        rows.append({"x": x, "sagas": float(sagas), **found, f"engine_and_broker_cpu_us_per_{curve.unit}": per_unit})
        print("    " + ", ".join(f"{name} {value:,.1f}" for name, value in rows[-1].items()), flush=True)
    return rows


def idle(site: Site) -> dict[str, float]:
    """What orchestrators cost that have nothing to do: milliseconds of CPU a second, for one and for each of three."""
    result: dict[str, float] = {}
    for instances in (1, 3):
        prefix = f"idle-{uuid4().hex[:8]}-"
        load = replace(ORDERS, orchestrators=instances)
        once(engine.set_up, site.bootstrap, prefix, load)
        roles: list[tuple[Any, tuple[Any, ...]]] = [
            (engine.orchestrator, (site.bootstrap, prefix, load, number)) for number in range(instances)
        ]
        with running(*roles) as pids:
            used = _over({**pids, "broker": [site.broker]}, _IDLE_S)
        result[f"orchestrator_cpu_ms_per_s_of_{instances}"] = used["orchestrator"] / instances * 1000 / _IDLE_S
        result[f"broker_cpu_ms_per_s_with_{instances}"] = used["broker"] * 1000 / _IDLE_S
    return result


def _over(pids: Pids, seconds: float) -> dict[str, float]:
    meter = CpuMeter(pids)
    threading.Event().wait(seconds)  # nothing is awaited: what is measured is a length of time
    return meter.seconds()
