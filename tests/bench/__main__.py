"""`make bench`: the engine against the floor, interleaved, on one real broker. Ratios count; single times drift.

Prints a table and writes `bench-results/bench.json`.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from sagakit.core import decide
from sagakit.testing.kafka import KafkaCluster
from tests.bench import curves, engine, floor, split, standing
from tests.bench.loads import Load
from tests.bench.roles import Site

Runner = Callable[[], Mapping[str, float]]

RESULTS: Final = Path(__file__).resolve().parents[2] / "bench-results"
_SHARE: Final = 0.3
"""The part of the saturated throughput at which the tail is measured."""


def _pairs(site: Site, o: argparse.Namespace) -> dict[str, tuple[Runner, Runner]]:
    """What is measured of the engine and of the floor in turns."""
    many, one = o.sagas, o.latency
    failing, triggered, two = Load(failing=True), Load(triggered=True), Load(orchestrators=2)
    rate = [o.rate]

    def per_s() -> float:
        if rate[0] is None:
            rate[0] = _SHARE * engine.measure(site, many)["sagas_per_s"]
            print(f"  load-30: {rate[0]:,.0f} sagas a second", flush=True)
        return float(rate[0])

    return {
        "saturated": (lambda: engine.measure(site, many), lambda: floor.measure(site, many, latency=False)),
        "failing": (
            lambda: engine.measure(site, many // 2, failing),
            lambda: floor.measure(site, many // 2, latency=False, failing=True),
        ),
        "two": (
            lambda: engine.measure(site, many, two),
            lambda: floor.measure(site, many, latency=False, orchestrators=2),
        ),
        "event-started": (
            lambda: engine.measure(site, many, triggered),
            lambda: floor.measure(site, many, latency=False),
        ),
        "latency": (
            lambda: engine.measure(site, one, latency=True),
            lambda: floor.measure(site, one, latency=True),
        ),
        "load-30": (
            lambda: engine.measure(site, many, per_s=per_s()),
            lambda: floor.measure(site, many, latency=False, per_s=per_s()),
        ),
        "restore": (
            lambda: standing.restore(site, o.snapshots),
            lambda: standing.bare_restore(site, o.snapshots),
        ),
    }


def _against(site: Site, o: argparse.Namespace) -> dict[str, tuple[Runner, Runner]]:
    """The same against another floor, and that one against ours: a lower bound that is slower than it is none."""

    def other(*arguments: str) -> Mapping[str, float]:
        return _other_floor(o.other_floor, site.bootstrap, *arguments)

    def ours(name: str) -> Runner:
        return lambda: _shared(_pairs(site, o)[name][0]())

    many, one = str(o.sagas), str(o.latency)
    return {
        "saturated : other floor": (ours("saturated"), lambda: other("--sagas", many)),
        "failing : other floor": (
            ours("failing"),
            lambda: other("--sagas", str(o.sagas // 2), "--fail-every", "1"),
        ),
        "two : other floor": (ours("two"), lambda: other("--sagas", many, "--orchestrators", "2")),
        "latency : other floor": (ours("latency"), lambda: other("--latency", one)),
        "other floor : floor": (
            lambda: other("--sagas", many),
            lambda: _shared(floor.measure(site, o.sagas, latency=False)),
        ),
    }


_SHARED: Final = ("sagas_per_s", "p50_ms", "p99_ms")


def _shared(found: Mapping[str, float]) -> Mapping[str, float]:
    """What another floor tells as well."""
    return {name: value for name, value in found.items() if name in _SHARED}


def _other_floor(script: str, bootstrap: str, *arguments: str) -> Mapping[str, float]:
    command = [sys.executable, script, bootstrap, *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return {name: float(value) for name, value in json.loads(done.stdout).items() if name in _SHARED}


def _alone(site: Site, o: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What is measured of the engine alone."""
    return {
        "wire": lambda: standing.wire(site, 500),
        "memory": lambda: standing.memory(o.waiting),
        "idle": lambda: curves.idle(site),
        "latency-split": lambda: split.measure(site, o.latency),
        **{
            f"curve-{name}": partial(curves.measure, site, curve)
            for name, curve in curves.curves(o.sagas // 2, o.standing).items()
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _run_pairs(name: str, engine_: Runner, floor_: Runner, pairs: int) -> dict[str, Any]:
    engines, floors = [], []
    for pair in range(pairs):
        engines.append(engine_())
        floors.append(floor_())
        shown = ", ".join(f"{k} {engines[-1][k]:,.1f} / {floors[-1][k]:,.1f}" for k in engines[-1])
        print(f"  {name} {pair + 1}/{pairs}: {shown}", flush=True)
    result: dict[str, Any] = {}
    for figure in engines[0]:
        mine = [one[figure] for one in engines]
        bare = [one[figure] for one in floors]
        ratios = [a / b if b else float("nan") for a, b in zip(mine, bare, strict=True)]
        result[figure] = {"engine": _spread(mine), "floor": _spread(bare), "ratio": _spread(ratios)}
    return result


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--sagas", type=int, default=10_000)
    parser.add_argument("--latency", type=int, default=300, help="how many sagas run one at a time")
    parser.add_argument("--rate", type=float, help="load-30: sagas a second (default: 30 %% of what saturates it)")
    parser.add_argument("--snapshots", type=int, default=200_000, help="restore: how many")
    parser.add_argument("--waiting", type=int, default=50_000, help="memory: how many sagas wait")
    parser.add_argument("--standing", type=int, default=1_000_000, help="curve-in-flight: how many wait at most")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="parts, or begins of their names")
    parser.add_argument(
        "--other-floor",
        metavar="SCRIPT",
        help="also compare with another floor: SCRIPT BOOTSTRAP --sagas N --json prints {sagas_per_s: …}; it takes "
        "--latency N, --fail-every K and --orchestrators N too",
    )
    return parser


def main() -> int:
    """Run what was asked for."""
    options = _parser().parse_args()
    began = time.time()
    results: dict[str, Any] = {}

    def wanted(name: str) -> bool:
        return not options.only or any(name.startswith(one) for one in options.only)

    with KafkaCluster() as kafka:
        site = Site(kafka.bootstrap, kafka.process(1).pid)
        floor.measure(site, 3000, latency=False)  # the broker's first seconds are slow
        pairs = _pairs(site, options) | (_against(site, options) if options.other_floor else {})
        for name, (engine_, floor_) in pairs.items():
            if wanted(name):
                results[name] = _run_pairs(name, engine_, floor_, options.pairs)
                _write(results, began)
        for name, runner in _alone(site, options).items():
            if wanted(name):
                print(f"  {name}:", flush=True)
                results[name] = runner()
                print(f"  {name}: {json.dumps(results[name])}", flush=True)
                _write(results, began)
    _table(results)
    return 0


def _write(results: Mapping[str, Any], began: float) -> None:
    """Write what is known so far: a run that is cut off has measured something all the same."""
    report = {
        "commit": _commit(),
        "build": "compiled" if str(decide.__file__).endswith(".so") else "pure",
        "python": platform.python_version(),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "took_s": round(time.time() - began),
        "results": results,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bench.json").write_text(json.dumps(report, indent=2) + "\n")


def _table(results: Mapping[str, Any]) -> None:
    print(f"\n{'figure':44}{'engine':>12}{'floor':>12}{'ratio (min … max)':>28}")
    for name, figures in results.items():
        if isinstance(figures, list):
            _table_of_curve(name, figures)
            continue
        for figure, value in figures.items():
            if not isinstance(value, dict):
                print(f"{name + ' ' + figure:44}{value:>12,.1f}")
                continue
            ratio = value["ratio"]
            shown = f"{ratio['median']:.2f} ({ratio['min']:.2f} … {ratio['max']:.2f})"
            row = f"{value['engine']['median']:>12,.1f}{value['floor']['median']:>12,.1f}{shown:>28}"
            print(f"{name + ' ' + figure:44}{row}")


def _table_of_curve(name: str, rows: Sequence[Mapping[str, float]]) -> None:
    """A line a point; the last column is what stays the same where the cost is a line."""
    columns = ("sagas_per_s", "orchestrator_cpu_us", "broker_cpu_us", list(rows[0])[-1])
    print(f"{name:44}" + "".join(f"{column:>26}" for column in columns))
    for row in rows:
        print(f"{row['x']:>44,.0f}" + "".join(f"{row[column]:>26,.1f}" for column in columns))


if __name__ == "__main__":
    sys.exit(main())
