"""The processes of the stage: started through the real command line, started again when they were killed on purpose."""

import sys
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Final

from sagakit.demo.stage import PROJECT, Death, DemoError
from sagakit.failpoints import POINTS, read_log
from sagakit.testing.process import Process

COMMAND_LINE: Final = (sys.executable, "-m", "sagakit.cli.main")

_STOP_TIMEOUT_S: Final = 15.0
_LINES_SHOWN: Final = 15

# A pass is a command in a handler, or a transaction of an orchestrator. Every process works a while before it dies, and
# longer for some places than for others, so that not all die at once.
_PROBABILITY: Final = 0.1
_WARM_UP_PASSES: Final = 6
_STAGGER: Final = 4
_POINTS_MIN: Final = 8
"""Over at least so many places are the kills spread, if there are as many kills."""

_PROCESSES_MIN: Final = 5
"""And over so many processes: where work piles up the next kill is likeliest, and one service would die on and on."""
_AT_START: Final = frozenset({"orchestrator.in-restore", "orchestrator.in-rebalance"})
"""Passed before a process has done anything: armed only in those that take over from one that was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kills:
    """How many processes are to be killed, and where it is written down. The same seed draws alike."""

    count: int
    seed: int
    log: Path

    def environment(self, who: str, *, again: bool) -> Mapping[str, str]:
        """What arms the failpoints of a process; `again`: it takes over from one that was killed."""
        deaths = sum(death.who == who for death in self.so_far())
        if not self.count or deaths > self.count // _PROCESSES_MIN:
            return {}
        points = sorted(POINTS if again else POINTS - _AT_START)
        each = self.count // _POINTS_MIN + 1
        armed = [
            f"{point}=kill@{_PROBABILITY}:{self.seed}:limit={each}"
            + ("" if point in _AT_START else f":after={_WARM_UP_PASSES * (1 + position % _STAGGER)}")
            for position, point in enumerate(points)
        ]
        return {
            "SAGAKIT_FAILPOINTS": ";".join([f"limit={self.count}", *armed]),
            "SAGAKIT_FAILPOINT_LOG": str(self.log),
            "SAGAKIT_FAILPOINT_WHO": who,
        }

    def so_far(self) -> Sequence[Death]:
        """The kills so far, oldest first."""
        return [
            Death(who=one.who, process_id=one.pid, point=one.point, at_ms=one.at_ms, detail=one.detail)
            for one in read_log(self.log)
        ]


class Troupe:
    """Orchestrators and services as child processes. Never leaves one behind."""

    def __init__(self, environment: Mapping[str, str], logs: Path, kills: Kills) -> None:
        """`environment` is what all processes share; each writes its output to `<logs>/<name>.log`."""
        self._environment = dict(environment)
        self._logs = logs
        self._kills = kills
        self._arguments: dict[str, Sequence[str]] = {}
        self._own_environments: dict[str, Mapping[str, str]] = {}
        self._roots: dict[str, Path] = {}
        self._processes: dict[str, Process] = {}

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        root: Path = PROJECT,
    ) -> Process:
        """Start `sagakit <arguments>` under a name of its own; `environment` and `root` are for this one alone."""
        self._arguments[name] = arguments
        self._own_environments[name] = environment or {}
        self._roots[name] = root
        self._launch(name, again=False)
        return self._processes[name]

    @property
    def names(self) -> Collection[str]:
        """Who is on the stage."""
        return self._processes.keys()

    def process(self, name: str) -> Process:
        """The process that bears this name now."""
        return self._processes[name]

    def stop(self, name: str) -> int:
        """Ask one to end and take it from the stage; gives its exit code."""
        return self._processes.pop(name).terminate(timeout_s=_STOP_TIMEOUT_S)

    def kill(self, name: str) -> None:
        """Kill one (SIGKILL) and take it from the stage."""
        self._processes.pop(name).kill()

    def look(self) -> None:
        """See `Supervisor.look`."""
        for name, process in self._processes.items():
            if (code := process.exit_code) is None:
                continue
            if code != -SIGKILL or all(death.process_id != process.pid for death in self.deaths()):
                raise DemoError(
                    f"{name} (process {process.pid}) has ended with exit code {code}, and nobody killed it. "
                    f"The end of its log, {process.log_path}:\n{process.log_tail(_LINES_SHOWN)}"
                )
            self._launch(name, again=True)

    def deaths(self) -> Sequence[Death]:
        """See `Supervisor.deaths`."""
        return self._kills.so_far()

    def dismiss(self) -> None:
        """Ask all to end, and kill those that do not in time."""
        with ThreadPoolExecutor(max_workers=max(1, len(self._processes))) as pool:
            list(pool.map(lambda process: process.terminate(timeout_s=_STOP_TIMEOUT_S), self._processes.values()))

    def _launch(self, name: str, *, again: bool) -> None:
        self._processes[name] = Process.start(
            name,
            [*COMMAND_LINE, *self._arguments[name]],
            log_directory=self._logs,
            environment={
                **self._environment,
                "SAGAKIT_INSTANCE": name,
                **self._kills.environment(name, again=again),
                **self._own_environments[name],
            },
            working_directory=self._roots[name],
        )
