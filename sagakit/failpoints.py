"""Places at which a process kills itself on purpose, so that crashes can be provoked where they hurt.

Inert unless the environment arms them:

- `SAGAKIT_FAILPOINTS` holds entries separated by `;`. An entry is `<point>=<action>@<probability>`, followed by
  options, each after a `:`. The action is `kill` (SIGKILL) or `stop` (SIGSTOP). Options: a number is the seed;
  `after=<passes>` lets that many passes of the point go by in each process first (warm-up); `limit=<times>` is how
  often the point acts at most, over all processes that share the log. The entry `limit=<times>` bounds all points
  together.
- `SAGAKIT_FAILPOINT_LOG` names the file that gets one JSON line, forced to disk, before each action. Needed for limits.
- `SAGAKIT_FAILPOINT_WHO` is the name that this process goes by in the log (default: its command line).

Example:
`SAGAKIT_FAILPOINTS="limit=20;participant.in-handler=kill@0.01:7:after=50:limit=5;orchestrator.in-restore=stop@1:1"`.

The same seed gives the same passes, as long as the log holds the same number of actions of the point: a restarted
process draws differently from the one that died.
"""

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

POINTS: Final = frozenset(
    {
        "participant.in-handler",
        "participant.in-local-transaction",
        "participant.between-effect-and-reply",
        "participant.after-reply",
        "orchestrator.transaction-open",
        "orchestrator.before-commit",
        "orchestrator.in-commit",
        "orchestrator.after-commit",
        "orchestrator.in-restore",
        "orchestrator.in-rebalance",
    }
)
"""Every point that the project passes. Others are refused, so that a misspelt one cannot prove nothing in silence."""

_ACTIONS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class FailpointError(ValueError):
    """The environment arms failpoints in a way that cannot be read; the message says which entry and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """One line of the failpoint log: which process did what to itself, where and when.

    `passes` counts how often that process had passed the point, this time included. `detail` is what the place itself
    tells, for instance the id of the command in work.
    """

    point: str
    action: str
    who: str
    pid: int
    thread: str
    passes: int
    at_ms: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    point: str
    action: str
    probability: float
    seed: int
    after: int
    limit: int | None


class _Armed:
    """One armed point of this process: counts passes, draws, and acts."""

    def __init__(self, rule: _Rule, *, total_limit: int | None, log: Path | None, who: str) -> None:
        self._rule = rule
        self._total_limit = total_limit
        self._log = log
        self._who = who
        self._lock = threading.Lock()
        self._passes = 0
        self._random = Random()
        self._reseed(_count(log, rule.point))

    def _reseed(self, acted_before: int) -> None:
        self._random.seed(f"{self._rule.seed}/{self._rule.point}/{acted_before}")

    def reach(self, detail: str) -> None:
        with self._lock:
            self._passes += 1
            if self._passes <= self._rule.after or self._random.random() >= self._rule.probability:
                return
            if self._log is not None and not self._record(self._log, detail):
                return
            os.kill(os.getpid(), _ACTIONS[self._rule.action])

    def _record(self, log: Path, detail: str) -> bool:
        """Write the line unless a limit is reached. The lock on the file makes counting and writing one act."""
        acted = Acted(
            point=self._rule.point,
            action=self._rule.action,
            who=self._who,
            pid=os.getpid(),
            thread=threading.current_thread().name,
            passes=self._passes,
            at_ms=time.time_ns() // 1_000_000,
            detail=detail,
        )
        line = json.dumps({name: getattr(acted, name) for name in Acted.__dataclass_fields__})
        descriptor = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = list(read_log(log))
            here = sum(1 for one in before if one.point == self._rule.point)
            if (self._rule.limit is not None and here >= self._rule.limit) or (
                self._total_limit is not None and len(before) >= self._total_limit
            ):
                return False
            os.write(descriptor, line.encode() + b"\n")
            os.fsync(descriptor)
            self._reseed(here + 1)
            return True
        finally:
            os.close(descriptor)


_armed: dict[str, _Armed] = {}


def failpoint(point: str, detail: str = "") -> None:
    """Pass the point `point`: nothing happens unless the environment armed it, then the process may end here."""
    if _armed and (armed := _armed.get(point)) is not None:
        armed.reach(detail)


def is_armed(point: str) -> bool:
    """Whether the environment armed the point: for a place that has to be made before it can be passed."""
    return point in _armed


def arm(environment: Mapping[str, str]) -> None:
    """Arm the points that `environment` names, in place of those armed before. Done once at import with `os.environ`.

    Raises:
        FailpointError: if an entry cannot be read, names no known point, or has a limit without a log to count in.
    """
    text = environment.get("SAGAKIT_FAILPOINTS", "")
    log = Path(path) if (path := environment.get("SAGAKIT_FAILPOINT_LOG")) else None
    who = environment.get("SAGAKIT_FAILPOINT_WHO") or " ".join(sys.argv)
    rules: dict[str, _Rule] = {}
    total_limit: int | None = None
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        if entry.startswith("limit="):
            total_limit = _whole_number(entry.removeprefix("limit="), entry)
            continue
        rule = _parse(entry)
        if rule.point in rules:
            raise FailpointError(f"SAGAKIT_FAILPOINTS arms {rule.point} twice; give one entry for it")
        rules[rule.point] = rule
    limited = total_limit is not None or any(rule.limit is not None for rule in rules.values())
    if limited and log is None:
        raise FailpointError(
            "SAGAKIT_FAILPOINTS has a limit, and limits are counted in the log: set SAGAKIT_FAILPOINT_LOG"
        )
    _armed.clear()
    _armed.update({point: _Armed(rule, total_limit=total_limit, log=log, who=who) for point, rule in rules.items()})


def read_log(log: Path) -> Iterator[Acted]:
    """The actions recorded in a failpoint log, oldest first; none if the file does not exist."""
    if not log.exists():
        return
    for line in log.read_text().splitlines():
        yield Acted(**json.loads(line))


def _count(log: Path | None, point: str) -> int:
    return 0 if log is None else sum(1 for acted in read_log(log) if acted.point == point)


def _parse(entry: str) -> _Rule:
    point, _, rest = entry.partition("=")
    head, *options = rest.split(":")
    action, at, probability_text = head.partition("@")
    if point not in POINTS:
        known = ", ".join(sorted(POINTS))
        raise FailpointError(f"SAGAKIT_FAILPOINTS: no point {point!r} in {entry!r}; there are {known}")
    if action not in _ACTIONS:
        raise FailpointError(f"SAGAKIT_FAILPOINTS: no action {action!r} in {entry!r}; there are {', '.join(_ACTIONS)}")
    try:
        probability = float(probability_text) if at else 1.0
    except ValueError:
        probability = -1.0
    if not 0 < probability <= 1:
        raise FailpointError(
            f"SAGAKIT_FAILPOINTS: {probability_text!r} in {entry!r} is not a probability above 0 and up to 1"
        )
    seed, after, limit = 0, 0, None
    for option in options:
        name, equals, number = option.partition("=")
        if not equals:
            seed = _whole_number(option, entry)
        elif name == "after":
            after = _whole_number(number, entry)
        elif name == "limit":
            limit = _whole_number(number, entry)
        else:
            raise FailpointError(f"SAGAKIT_FAILPOINTS: no option {name!r} in {entry!r}; there are after and limit")
    return _Rule(point=point, action=action, probability=probability, seed=seed, after=after, limit=limit)


def _whole_number(text: str, entry: str) -> int:
    if not text.isdecimal():
        raise FailpointError(f"SAGAKIT_FAILPOINTS: {text!r} in {entry!r} is not a whole number")
    return int(text)


arm(os.environ)
