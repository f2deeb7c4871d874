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
from pathlib import Path
from typing import Any, Final

from sagakit.core import decide
from sagakit.testing.kafka import KafkaCluster
from tests.bench import engine, floor, standing

Runner = Callable[[str], Mapping[str, float]]

RESULTS: Final = Path(__file__).resolve().parents[2] / "bench-results"


def _pairs(options: argparse.Namespace) -> dict[str, tuple[Runner, Runner]]:
    many, one = options.sagas, options.latency
    return {
        "other-floor": (
            lambda b: _other_floor(options.other_floor, b, many),
            lambda b: floor.measure(b, many, latency=False, failing=False),
        ),
        "saturated": (
            lambda b: engine.measure(b, many, latency=False, failing=False),
            lambda b: floor.measure(b, many, latency=False, failing=False),
        ),
        "failing": (
            lambda b: engine.measure(b, many // 2, latency=False, failing=True),
            lambda b: floor.measure(b, many // 2, latency=False, failing=True),
        ),
        "latency": (
            lambda b: engine.measure(b, one, latency=True, failing=False),
            lambda b: floor.measure(b, one, latency=True, failing=False),
        ),
        "event-started": (
            lambda b: engine.measure(b, many, latency=False, failing=False, triggered=True),
            lambda b: floor.measure(b, many, latency=False, failing=False),
        ),
        "restore": (
            lambda b: standing.restore(b, options.snapshots),
            lambda b: standing.bare_restore(b, options.snapshots),
        ),
    }


def _other_floor(script: str, bootstrap: str, sagas: int) -> Mapping[str, float]:
    """Run somebody else's floor once: a lower bound that is slower than it is none."""
    command = [sys.executable, script, bootstrap, "--sagas", str(sagas), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return {"sagas_per_s": float(json.loads(done.stdout)["sagas_per_s"])}


def _alone(options: argparse.Namespace) -> dict[str, Runner]:
    return {
        "wire": lambda b: standing.wire(b, 500),
        "memory": lambda b: standing.memory(b, options.waiting),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _run_pairs(name: str, engine_: Runner, floor_: Runner, bootstrap: str, pairs: int) -> dict[str, Any]:
    engines, floors = [], []
    for pair in range(pairs):
        engines.append(engine_(bootstrap))
        floors.append(floor_(bootstrap))
        shown = ", ".join(f"{k} {engines[-1][k]:,.1f} / {floors[-1][k]:,.1f}" for k in engines[-1])
        print(f"  {name} {pair + 1}/{pairs}: {shown}", flush=True)
    result: dict[str, Any] = {}
    for figure in engines[0]:
        mine = [one[figure] for one in engines]
        bare = [one[figure] for one in floors]
        ratios = [a / b for a, b in zip(mine, bare, strict=True)]
        result[figure] = {"engine": _spread(mine), "floor": _spread(bare), "ratio": _spread(ratios)}
    return result


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--sagas", type=int, default=10_000)
    parser.add_argument("--latency", type=int, default=300)
    parser.add_argument("--snapshots", type=int, default=200_000)
    parser.add_argument("--waiting", type=int, default=50_000)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument(
        "--other-floor",
        metavar="SCRIPT",
        help="also compare another floor with this one: SCRIPT BOOTSTRAP --sagas N --json prints {sagas_per_s: …}",
    )
    options = parser.parse_args()
    began = time.time()
    results: dict[str, Any] = {}
    with KafkaCluster() as kafka:
        floor.measure(kafka.bootstrap, 3000, latency=False, failing=False)  # the broker's first seconds are slow
        pairs = _pairs(options)
        if options.other_floor is None:
            del pairs["other-floor"]
        for name, (engine_, floor_) in pairs.items():
            if not options.only or name in options.only:
                results[name] = _run_pairs(name, engine_, floor_, kafka.bootstrap, options.pairs)
                _write(results, began)
        for name, runner in _alone(options).items():
            if not options.only or name in options.only:
                results[name] = runner(kafka.bootstrap)
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
    print(f"\n{'figure':34}{'engine':>12}{'floor':>12}{'ratio (min … max)':>28}")
    for name, figures in results.items():
        for figure, value in figures.items():
            if not isinstance(value, dict):
                print(f"{name + ' ' + figure:34}{value:>12,.1f}")
                continue
            ratio = value["ratio"]
            shown = f"{ratio['median']:.2f} ({ratio['min']:.2f} … {ratio['max']:.2f})"
            row = f"{value['engine']['median']:>12,.1f}{value['floor']['median']:>12,.1f}{shown:>28}"
            print(f"{name + ' ' + figure:34}{row}")


if __name__ == "__main__":
    sys.exit(main())
