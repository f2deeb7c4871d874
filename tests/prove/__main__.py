"""`make prove`: the long proofs, simulated and on real servers with real processes. One part, or all of them.

Each writes `proof/<part>.json`: commit, seed, counts. A part that fails says what is not as it must be, and where the
logs are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from sagakit.demo.stage import DemoError
from sagakit.telemetry.logging import configure_logging
from sagakit.testing.errors import ServerError
from tests.prove import (
    away,
    bad_input,
    brokers,
    compaction,
    core_mutants,
    failover,
    fuzz,
    fuzz_kafka,
    kills,
    outage,
    restarts,
    simulation,
    starts,
    triggers,
    upgrade,
    zombies,
)
from tests.prove.house import House, ProofFailedError, open_house

Part = Callable[[Path, argparse.Namespace], dict[str, Any]]
HousePart = Callable[[House, Path, argparse.Namespace], dict[str, Any]]

RESULTS: Final = Path("proof")


def _away(who: str, house: House, folder: Path, o: argparse.Namespace) -> dict[str, Any]:
    return away.prove(house, folder, prefix=f"away-{who}.", who=who, times=away.times(o.count), seed=o.seed)


IN_A_HOUSE: Final[dict[str, HousePart]] = {
    "kills": lambda house, folder, o: kills.prove(
        house,
        folder,
        prefix="kills.",
        kills=o.kills or 500,
        sagas=o.sagas or (20_000 if o.kills is None else 0),
        seed=o.seed,
    ),
    "zombies": lambda house, folder, o: zombies.prove(
        house, folder, prefix="zombies.", count=o.count or 100, seed=o.seed
    ),
    "restarts": lambda house, folder, o: restarts.prove(
        house, folder, prefix="restarts.", rounds=o.count or 10, seed=o.seed
    ),
    "brokers": lambda house, folder, o: brokers.prove(
        house, folder, prefix="brokers.", leaders=o.count or 20, seed=o.seed
    ),
    "compaction": lambda house, folder, o: compaction.prove(
        house, folder, prefix="compaction.", rounds=o.count or 12, seed=o.seed
    ),
    "starts": lambda house, folder, o: starts.prove(
        house, folder, prefix="starts.", sagas=o.sagas or 10_000, seed=o.seed
    ),
    "outage": lambda house, folder, o: outage.prove(
        house, folder, prefix="outage.", sagas=o.sagas or 2_000, seed=o.seed
    ),
    **{f"outage-{who}": partial(_away, who) for who in away.SCENES},
    "failover": lambda house, folder, o: failover.prove(
        house,
        folder,
        prefix="failover.",
        sizes=[o.sagas] if o.sagas else failover.SIZES,
        rounds=o.count or 3,
        seed=o.seed,
    ),
    "fuzz-kafka": lambda house, folder, o: fuzz_kafka.prove(
        house, folder, prefix="fuzz.", records=o.count or 100_000, seed=o.seed
    ),
    "input": lambda house, folder, o: bad_input.prove(
        house, folder, prefix="input.", rounds=o.count or 10, seed=o.seed
    ),
    "triggers": lambda house, folder, o: triggers.prove(
        house, folder, prefix="triggers.", versions=o.count or 10, orders=o.sagas or 200, seed=o.seed
    ),
}
"""On a real broker and registry, with real processes."""

BROKERS: Final = {"restarts": 3, "brokers": 3, "compaction": 3}
"""How many brokers a part has, if more than one."""

ALONE: Final[dict[str, Part]] = {
    "simulation": lambda _, o: simulation.prove(seeds=o.seeds or 100_000, seed=o.seed),
    "upgrade": lambda folder, o: upgrade.prove(folder / "upgrade", orders=o.count or 200, seed=o.seed),
    "fuzz": lambda _, o: fuzz.prove(records=o.count or 1_000_000, seed=o.seed),
    "core-mutants": lambda _folder, _options: core_mutants.prove(),
    "mutants": lambda _, o: simulation.prove_mutants(seeds=o.seeds or 3_000, seed=o.seed),
}
"""Without a server."""


def _in_a_house(part: HousePart, count: int) -> Part:
    def prove(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
        with open_house(folder / "house", count) as house:
            return part(house, folder / "shop", options)

    return prove


PARTS: Final[dict[str, Part]] = {
    **ALONE,
    **{name: _in_a_house(part, BROKERS.get(name, 1)) for name, part in IN_A_HOUSE.items()},
}


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="make prove", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], help=f"{', '.join(PARTS)}; all without one")
    parser.add_argument("--seed", type=int, default=1, help="other orders, and other moments")
    parser.add_argument("--kills", type=int, help="kills: how many processes die (default 500)")
    parser.add_argument("--sagas", type=int, help="how many at least, or how many wait; failover: in flight")
    parser.add_argument(
        "--count",
        type=int,
        help="zombies: how many times (default 100); failover: rounds (3); outage-…: seconds away (300); "
        "fuzz: records (1,000,000); fuzz-kafka: records (100,000)",
    )
    parser.add_argument("--seeds", type=int, help="simulation, mutants: how many worlds (default 100,000; 3,000)")
    options = parser.parse_args()
    failed = [name for name in options.part or PARTS if not _prove(name, options)]
    if failed:
        print(f"NOT PROVEN: {', '.join(failed)}")
    return 1 if failed else 0


def _prove(name: str, options: argparse.Namespace) -> bool:
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"sagakit-proof-{name}-"))
    report: dict[str, Any] = {"part": name, "commit": _commit(), "seed": options.seed, "began": _utc(), "proven": False}
    print(f"{name}: under way (logs in {folder})", flush=True)
    try:
        with (folder / "proof.log").open("w", encoding="utf-8") as log:
            configure_logging(style="console", level="info", stream=log)
            report["counts"] = PARTS[name](folder, options)
        report["proven"] = True
    except (ProofFailedError, DemoError, ServerError) as error:
        report["complaint"] = str(error)
    finally:
        configure_logging(style="console", level="error")
    report["ended"] = _utc()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    said = json.dumps(report["counts"], ensure_ascii=False) if report["proven"] else report["complaint"]
    print(f"{name}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    return bool(report["proven"])


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


if __name__ == "__main__":
    sys.exit(main())
