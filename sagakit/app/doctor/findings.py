"""What a check of the doctor comes to."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """`WARN`: it works, and may surprise or lose something one day. `FAIL`: sagakit's promises do not hold on it."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: what was found, and what to do about it where it is not in order."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """In order."""
    return Finding(check=check, verdict=Verdict.OK, found=found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """Works, but."""
    return Finding(check=check, verdict=Verdict.WARN, found=found, remedy=remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """A promise is not kept."""
    return Finding(check=check, verdict=Verdict.FAIL, found=found, remedy=remedy)
