"""Mutation testing of the core: each small change of its lines is noticed by its tests, or is explained."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from tests.mutation.mutants import ROOT, modules
from tests.mutation.survivors import Key, disagreements
from tests.prove.house import require


def prove(only: Sequence[str] = ()) -> dict[str, Any]:
    """Judge every mutant of these modules of the core (of all, if none is named).

    Raises:
        ProofFailedError: a mutant survived that the list of survivors does not explain, or the list is no longer true.
    """
    judged = _judge(only)
    survived = [key for key, verdict in judged.items() if verdict == "survived"]
    killed = [key for key, verdict in judged.items() if verdict != "survived"]
    found = list(disagreements(survived, killed, only or modules()))
    require(not found, f"{len(found)} of {len(judged)} mutants:\n\n" + "\n\n".join(found))
    noticed = Counter(module for module, _, _ in killed)
    silent = sorted({module for module, _, _ in judged} - noticed.keys())
    require(bool(noticed) and not silent, f"no mutant of these modules was noticed: {silent or 'any'}")
    timed_out = sum(verdict == "timed out" for verdict in judged.values())
    return {
        "tool": f"mutmut {version('mutmut')}",
        "mutants": len(judged),
        "killed": len(killed) - timed_out,
        "timed_out": timed_out,
        "survived_and_explained": len(survived),
        "noticed_by_module": dict(sorted(noticed.items())),
    }


def _judge(only: Sequence[str]) -> dict[Key, str]:
    """Each mutant's verdict, from a process of its own: this one has imported the core, a mutant must come first."""
    command = [sys.executable, "-m", "tests.mutation", "--json", *only]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    require(done.returncode == 0, f"the mutants cannot be judged:\n{done.stderr}")
    lines = (json.loads(line) for line in done.stdout.splitlines())
    return {(module, place, change): verdict for module, place, change, verdict, _ in lines}
