"""Worlds by the hundred thousand: the very loop, restore, timers and core on a simulated log; a seed draws faults."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.pool import Pool
from typing import Any, Final

import pytest
import structlog

from sagakit.language import published
from tests.prove.house import require
from tests.simulation import shop
from tests.simulation.mutants import MUTANTS
from tests.simulation.run import Ran, run_seed
from tests.simulation.shrink import shrink
from tests.simulation.test_simulation import PROVOKED

_CHUNK: Final = 100
_TOLD: Final = 3
_SEEDS_APART: Final = 10_000_000
"""Between the worlds of one `--seed` and those of the next."""


def prove(*, seeds: int, seed: int = 1) -> dict[str, Any]:
    """Run `seeds` worlds, each from its own seed; every one must come to rest with everything in order.

    Raises:
        ProofFailedError: some did not; the first of them are shrunk, and it says how to replay them.
    """
    first = (seed - 1) * _SEEDS_APART
    happened: Counter[str] = Counter()
    steps, broken = 0, list[Ran]()
    began = time.monotonic()
    with workers(None) as pool:
        chunks = (range(at, min(at + _CHUNK, first + seeds)) for at in range(first, first + seeds, _CHUNK))
        for ran_steps, ran_happened, ran_broken in pool.imap_unordered(_run_chunk, chunks):
            steps += ran_steps
            happened += ran_happened
            broken += ran_broken
        took_s = time.monotonic() - began
        told = pool.map(shrink, broken[:_TOLD]) if broken else []
    require(
        not broken, f"{len(broken)} of {seeds} worlds: {[ran.seed for ran in broken]}\n" + "\n".join(map(str, told))
    )
    missing = [what for what in PROVOKED if not happened[what]]
    require(not missing, f"never provoked: {missing}")
    per_minute = round(steps / took_s * 60)
    return {"worlds": seeds, "steps": steps, "steps_per_minute": per_minute, "provoked": dict(happened.most_common())}


def prove_mutants(*, seeds: int, seed: int = 1) -> dict[str, Any]:
    """Put each known defect back into the engine; some world must find it.

    Raises:
        ProofFailedError: a defect is found by none of `seeds` worlds.
    """
    first = (seed - 1) * _SEEDS_APART
    with workers(None) as pool:
        found = dict(pool.imap_unordered(partial(_find_mutant, first=first, seeds=seeds), MUTANTS))
    survivors = sorted(name for name, by in found.items() if by is None)
    require(not survivors, f"none of {seeds} worlds finds: {', '.join(survivors)}")
    return {"defects": len(found), "found_by_seed": dict(sorted(found.items()))}


@contextmanager
def workers(count: int | None) -> Iterator[Pool]:
    """Processes that share no state and log nothing; None: one for each processor."""
    with get_context("spawn").Pool(count, _begin) as pool:
        yield pool


def _begin() -> None:
    """Log lines of worlds full of faults are worth less than their time; all worlds share the compiled definitions."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    setattr(published, "compile_bundle", shop.compiled)  # noqa: B010 - it is imported there, not exported


def _run_chunk(seeds: range) -> tuple[int, Counter[str], list[Ran]]:
    happened: Counter[str] = Counter()
    steps, broken = 0, list[Ran]()
    for seed in seeds:
        ran = run_seed(seed)
        steps += ran.steps
        happened.update(ran.happened)
        if ran.problems:
            broken.append(ran)
    return steps, happened, broken


def _find_mutant(name: str, first: int, seeds: int) -> tuple[str, int | None]:
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        return name, next((seed for seed in range(first, first + seeds) if run_seed(seed).problems), None)
