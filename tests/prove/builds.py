"""Two builds to run beside each other: the one that was released last, or this tree, and this tree with a next level.

The next engine level is a patch that only proofs know: a field in the snapshots and another rule, both of level 2.
"""

import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Final

from sagakit.demo.stage import PROJECT

_PARTS: Final = ("sagakit", "schemas", "services", "tests")

_PATCH: Final = (
    ("sagakit/core/turn.py", "ENGINE_LEVELS: Final = (1,)", "ENGINE_LEVELS: Final = (1, 2)"),
    (
        "sagakit/core/progress.py",
        "marker_expires_at_ms=turn.partition_ms + turn.definition.dedupe_ms",
        "marker_expires_at_ms=turn.partition_ms + turn.definition.dedupe_ms + (turn.saga.engine_level > 1)",
    ),
    (
        "sagakit/contracts/snapshots.py",
        "    put_array(parts, len(saga.signals), saga.signals, _put_signal)\n\n\ndef _put_step",
        "    put_array(parts, len(saga.signals), saga.signals, _put_signal)\n"
        '    put_optional_string(parts, "yes" if saga.engine_level > 1 else None)\n\n\ndef _put_step',
    ),
    (
        "schemas/sagakit/Snapshot.avsc",
        "\n  ]\n}",
        ',\n    {"name": "next_level", "type": ["null", "string"], "doc": "Of level 2.", "default": null}\n  ]\n}',
    ),
)

RULE_MS: Final = 1
"""By how much longer the marker of a saga of level 2 stands."""

FIELD: Final = "next_level"
"""The field that snapshots of level 2 have."""


def next_build(folder: Path) -> Path:
    """A copy of this tree that runs levels 1 and 2; its root."""
    for part in _PARTS:
        shutil.copytree(PROJECT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    for name, before, after in _PATCH:
        file = folder / name
        text = file.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"the patch of the next level no longer fits {name}: {before!r}"
        file.write_text(text.replace(before, after), encoding="utf-8")
    return folder


def last_build(folder: Path, repository: Path = PROJECT) -> Path:
    """The tree of the last tagged release; this tree as long as none is tagged. Its root."""
    tag = last_tag(repository)
    if tag is None:
        return repository
    done = subprocess.run(
        ["git", "archive", "--format=tar", tag, *_PARTS], cwd=repository, capture_output=True, check=True
    )
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def last_tag(repository: Path) -> str | None:
    """The newest tag of a release (`v…`) that this tree descends from; None if there is none, or no repository."""
    done = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0", "--match", "v*"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
