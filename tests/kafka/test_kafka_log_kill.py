"""A process that is killed at any point of its cycle, and its successor, do everything once."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from sagakit.ports.log import Aborted, Committed
from sagakit.testing.kafka import KafkaServer
from sagakit.testing.process import Process
from tests.contract.worlds import Driver, KafkaWorld, values, work_of

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

POINTS = (
    "orchestrator.in-rebalance",
    "orchestrator.in-restore",
    "orchestrator.transaction-open",
    "orchestrator.before-commit",
    "orchestrator.in-commit",
    "orchestrator.after-commit",
)

EXPECTED = [b"%d" % number for number in range(50)]


def start_and_kill(world: KafkaWorld, point: str, directory: Path) -> Process:
    settings = {
        "properties": dict(world.plain),
        "group": world.group,
        "transactional_id": f"{world.prefix}a",
        "inbox": world.inbox,
        "state": world.state,
        "out": world.out,
        "timers_only": False,
    }
    return Process.start(
        point,
        [sys.executable, "-m", "tests.kafka.log_instance", json.dumps(settings)],
        log_directory=directory,
        environment={"SAGAKIT_FAILPOINTS": f"{point}=kill@1"},
        working_directory=ROOT,
    )


def test_rule_16_a_kill_at_any_point_loses_nothing_and_doubles_nothing(
    kafka: KafkaServer, topic_prefix: str, tmp_path: Path
) -> None:
    """Rule 16: all points at once, each with topics and a group of its own: most of it is the dead members' session."""
    worlds = {point: KafkaWorld(kafka.client_properties(), f"{topic_prefix}{point}.") for point in POINTS}
    with ExitStack() as running:
        killed = {}
        for point, world in worlds.items():
            world.publish(world.inbox, 0, *EXPECTED)
            killed[point] = running.enter_context(start_and_kill(world, point, tmp_path))
        for point, process in killed.items():
            assert process.wait(timeout_s=60) == -signal.SIGKILL, f"{point} was not passed: {process.log_tail()}"
        heirs = {}
        for point, world in worlds.items():
            running.callback(world.close)
            heirs[point] = Driver(world.open())
            heirs[point].log.subscribe([world.inbox])
        waiting = dict(heirs)
        turns = 0
        while waiting:
            for point, heir in list(waiting.items()):
                world = worlds[point]
                heir.turn(0.02)
                if records := heir.take():
                    assert isinstance(heir.log.commit(work_of(world, records)), Committed | Aborted)
                if turns % 20 == 0 and len(world.visible(world.out, 0)) >= len(EXPECTED):
                    del waiting[point]
            turns += 1
        for point, world in worlds.items():
            assert values(world.visible(world.out, 0)) == EXPECTED, point
            assert values(world.visible(world.state, 0)) == EXPECTED, point
