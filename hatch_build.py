"""How wheels are built: with `SAGAKIT_COMPILE=1` the engine's hot path is compiled to machine code by mypyc.

The source is the same either way, and so is what it does: `tests/acceptance/test_compiled.py` runs the replay law, the
rules of the core and the simulation on the compiled wheel. What it gives: `make bench` against `make bench BUILD=pure`.
Without the variable, and in an editable install, sagakit is pure Python and needs no compiler.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "SAGAKIT_COMPILE"

# What runs for each record. Not among them: the frozen dataclasses of the core, which tools and tests look into and
# which gain nothing, and `address`, whose class extends a built-in one (mypyc cannot have that).
COMPILED = (
    "core/controls.py",
    "core/copying.py",
    "core/decide.py",
    "core/evolve.py",
    "core/ids.py",
    "core/placement.py",
    "core/progress.py",
    "core/replies.py",
    "core/retry.py",
    "core/schedule.py",
    "core/table.py",
    "core/timers.py",
    "core/turn.py",
    "contracts/codec.py",
    "contracts/conversion.py",
    "contracts/envelope.py",
    "contracts/framing.py",
    "contracts/messages.py",
    "contracts/own.py",
    "contracts/own_writer.py",
    "contracts/parts.py",
    "contracts/payload.py",
    "contracts/scalars.py",
    "contracts/snapshots.py",
    "contracts/transitions.py",
    "orchestrator/cycle.py",
    "orchestrator/decider.py",
    "orchestrator/loop.py",
    "orchestrator/memory.py",
    "orchestrator/reader.py",
    "orchestrator/writer.py",
)


class CustomBuildHook(BuildHookInterface[Any]):
    """Puts the compiled modules beside their sources in the wheel."""

    def _wanted(self) -> bool:
        return self.target_name == "wheel" and os.environ.get(VARIABLE, "") not in ("", "0")

    def dependencies(self) -> list[str]:
        """What compiling needs: the compiler, and the libraries whose types it checks against."""
        return (
            ["mypy>=2.4", "setuptools>=80", "types-protobuf>=6.32", *self.metadata.core.dependencies]
            if self._wanted()
            else []
        )

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say what goes into the wheel."""
        if not self._wanted() or version == "editable":
            return
        folder = Path(tempfile.mkdtemp(prefix="sagakit-compiled-"))
        for built in _compile(Path(self.root), folder):
            build_data["force_include"][str(built)] = built.relative_to(folder / "out").as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def _compile(root: Path, folder: Path) -> list[Path]:
    # Here and not above: only a build that compiles has them.
    from mypyc.build import mypycify  # noqa: PLC0415
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    before = Path.cwd()
    os.chdir(root)
    try:
        sources = [str(Path("sagakit", name)) for name in COMPILED]
        extensions = mypycify(
            sources, opt_level="3", debug_level="0", group_name="sagakit", target_dir=str(folder / "c")
        )
    finally:
        os.chdir(before)
    command = build_ext(Distribution({"name": "sagakit", "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(folder / "out"), str(folder / "objects")
    command.parallel = os.cpu_count()
    command.ensure_finalized()
    command.run()
    return sorted(path for path in (folder / "out").rglob("*") if path.is_file())
