"""How wheels are built: with `SAGAKIT_COMPILE=1` the engine's hot path is compiled to machine code by mypyc.

The source is the same either way, and so is what it does: `tests/acceptance/test_compiled.py` runs the replay law, the
rules of the core and the simulation on the compiled wheel. What it gives: `make bench` against `make bench BUILD=pure`.
Without the variable, and in an editable install, sagakit is pure Python and needs no compiler.
"""

import ast
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "SAGAKIT_COMPILE"

# What runs for each record. Not among them: `address`, whose class extends a built-in one (mypyc cannot have that).
COMPILED = (
    "core/actions.py",
    "core/controls.py",
    "core/decide.py",
    "core/events.py",
    "core/evolve.py",
    "core/ids.py",
    "core/placement.py",
    "core/progress.py",
    "core/replies.py",
    "core/retry.py",
    "core/schedule.py",
    "core/state.py",
    "core/table.py",
    "core/timers.py",
    "core/transitions.py",
    "core/turn.py",
    "core/values.py",
    "contracts/codec.py",
    "contracts/conversion.py",
    "contracts/envelope.py",
    "contracts/framing.py",
    "contracts/messages.py",
    "contracts/own.py",
    "contracts/binary.py",
    "contracts/parts.py",
    "contracts/payload.py",
    "contracts/scalars.py",
    "contracts/snapshots.py",
    "contracts/transitions.py",
    "contracts/writing.py",
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

    tree = folder / "source"
    shutil.copytree(root / "sagakit", tree / "sagakit", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tree)
    for name in COMPILED:
        module = tree / "sagakit" / name
        module.write_text(with_constructors(module.read_text()))
    before = Path.cwd()
    os.chdir(tree)
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


def with_constructors(source: str) -> str:
    """The source of a module whose frozen dataclasses say what `dataclass` would only make at run time: `__init__`.

    mypyc can compile only what stands there, and an instance is made in a twentieth of the time (measured: 0.02 µs for
    13 fields, 0.41 µs with the generated one). A class is left alone whose fields are more than a type and a default.
    The types of fields are noted, for `dataclasses.fields`: mypyc keeps the simple ones only.
    """
    lines = source.splitlines()
    known: dict[str, list[ast.AnnAssign]] = {}
    written: list[tuple[ast.ClassDef, list[ast.AnnAssign], bool]] = []
    for node in ast.parse(source).body:
        options = _dataclass_options(node)
        if not isinstance(node, ast.ClassDef) or options is None or "frozen" not in options:
            continue
        bases = [ast.unparse(base) for base in node.bases]
        own = [one for one in node.body if isinstance(one, ast.AnnAssign)]
        if _is_special(node, own) or not known.keys() >= set(bases):
            continue
        known[node.name] = [one for base in bases for one in known[base]] + own
        written.append((node, own, "kw_only" in options))
    for node, own, keywords in reversed(written):  # so that the lines above stay where they were
        _write_out(lines, node, known[node.name], own, keywords=keywords)
    if written:
        lines.insert(0, '# mypy: disable-error-code="misc"')  # a frozen field is set
    return "\n".join((*lines, ""))


def _dataclass_options(node: ast.stmt) -> set[str] | None:
    """The options that a class gives to `dataclass`; None if it is none."""
    for one in node.decorator_list if isinstance(node, ast.ClassDef) else []:
        if isinstance(one, ast.Call) and ast.unparse(one.func) == "dataclass":
            return {option.arg for option in one.keywords if option.arg is not None}
    return None


def _is_special(node: ast.ClassDef, own: list[ast.AnnAssign]) -> bool:
    """Whether the class does more when it is made than set its fields."""
    methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
    made = methods & {"__init__", "__post_init__"}
    return bool(made) or any(isinstance(one.value, ast.Call) or "ClassVar" in ast.unparse(one) for one in own)


def _write_out(
    lines: list[str], node: ast.ClassDef, fields: list[ast.AnnAssign], own: list[ast.AnnAssign], *, keywords: bool
) -> None:
    """Write the constructor at the end of the class, tell `dataclass` of it, and note the types of its own fields."""
    arguments = [ast.unparse(one) for one in fields]
    names = [ast.unparse(one.target) for one in fields]
    assert node.end_lineno is not None
    types = [(ast.unparse(one.target), ast.unparse(one.annotation)) for one in own]
    lines[node.end_lineno : node.end_lineno] = [
        "",
        f"    def __init__(self, {'*, ' if keywords and fields else ''}{', '.join(arguments)}) -> None:",
        *(f"        self.{name} = {name}" for name in names),
        *(() if names else ("        pass",)),
        "",
        *(f"vars({node.name})['__dataclass_fields__'][{name!r}].type = {type_}" for name, type_ in types),
    ]
    decorator = node.decorator_list[0].end_lineno
    assert decorator is not None
    lines[decorator - 1] = lines[decorator - 1].rstrip().removesuffix(")") + ", init=False)"
