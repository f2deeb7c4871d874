"""The mutants that no test can notice, each with the reason: `survivors.toml`, held against what really survives."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("survivors.toml")

Key = tuple[str, str, str]
"""Module, place and change of a mutant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Changes in one place that make no difference, and why. A pattern stands for each change that it matches whole."""

    module: str
    place: str
    why: str
    changes: tuple[str, ...] = ()
    pattern: str | None = None

    def covers(self, key: Key) -> bool:
        """Whether a mutant is one of these."""
        module, place, change = key
        if (module, place) != (self.module, self.place):
            return False
        return change in self.changes or (self.pattern is not None and re.fullmatch(self.pattern, change) is not None)


def explained() -> list[Explained]:
    """The list.

    Raises:
        TypeError: an entry has a field that is not known, or lacks one.
    """
    entries = tomllib.loads(FILE.read_text(encoding="utf-8"))["survivor"]
    return [
        Explained(**{**entry, "changes": tuple(change.strip() for change in entry.get("changes", ()))})
        for entry in entries
    ]


def disagreements(survived: Sequence[Key], killed: Sequence[Key], modules: Sequence[str]) -> Iterator[str]:
    """Where the list and a whole run over these modules differ: what is not explained, and what no longer holds."""
    entries = [entry for entry in explained() if entry.module in modules]
    for key in survived:
        if not any(entry.covers(key) for entry in entries):
            yield f"survived, and nobody says why:\n{_shown(*key)}"
    for entry in entries:
        for key in killed:
            if entry.covers(key):
                yield f"is listed as a survivor, but a test notices it:\n{_shown(*key)}"
        covered = {change for module, place, change in (*survived, *killed) if entry.covers((module, place, change))}
        missing = [change for change in entry.changes if change not in covered]
        if entry.pattern is not None and not covered:
            missing.append(entry.pattern)
        for change in missing:
            yield f"is listed as a survivor, but there is no such mutant:\n{_shown(entry.module, entry.place, change)}"


def _shown(module: str, place: str, change: str) -> str:
    return f"{module}.py, {place}:\n{change}"
