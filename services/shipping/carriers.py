"""The carriers, by country: good, slow, one that answers too late, one that fails at first, one that is silent."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """How a carrier behaves.

    It answers after `answers_after_s`. At the first `late_attempts` attempts it answers only when nobody waits any
    more. At the first `failing_attempts` attempts it fails technically, at the last of them after it has booked the
    parcel. One that never `answers` books all the same: only its own books tell.
    """

    name: str
    tracks: bool = True
    answers_after_s: float = 0.0
    late_attempts: int = 0
    failing_attempts: int = 0
    answers: bool = True


LATE_BY_S: Final = 0.3
"""How long after the command's expiry a late carrier answers."""

SWIFT: Final = Carrier(name="Swift Parcel")
SLOW: Final = Carrier(name="Canal Boats", tracks=False, answers_after_s=0.4)
LATE: Final = Carrier(name="Poste Tardive", late_attempts=1)
FLAKY: Final = Carrier(name="Gremlin Freight", failing_attempts=2)
SILENT: Final = Carrier(name="Northern Silence", answers=False)

CARRIERS: Final = {
    "AT": SWIFT,
    "BE": SWIFT,
    "DE": SWIFT,
    "DK": SWIFT,
    "FR": LATE,
    "IS": SILENT,
    "NL": SLOW,
    "PL": FLAKY,
    "SE": SWIFT,
}
"""Who delivers where (ISO 3166-1 alpha-2). Countries that are not here are not served."""
