"""Failpoints kill their own process, leave a record first, keep their limits, and do nothing when nobody armed them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sagakit.failpoints import FailpointError, arm, failpoint, read_log

PROGRAM = """
from sagakit.failpoints import failpoint
for number in range(100):
    failpoint("participant.in-handler", f"command {number}")
print("survived")
"""


def run(points: str, log: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "SAGAKIT_FAILPOINTS": points,
        "SAGAKIT_FAILPOINT_LOG": str(log),
        "SAGAKIT_FAILPOINT_WHO": "payments-1",
    }
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_kill_happens_at_its_pass_and_is_recorded_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    finished = run("participant.in-handler=kill@1:7:after=30", log)
    assert finished.returncode == -signal.SIGKILL
    assert finished.stdout == ""
    (acted,) = read_log(log)
    assert (acted.point, acted.action, acted.who) == ("participant.in-handler", "kill", "payments-1")
    assert (acted.passes, acted.detail) == (31, "command 30")


def test_the_limit_counts_over_processes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    codes = [run("participant.in-handler=kill@1:limit=2", log).returncode for _ in range(3)]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert len(list(read_log(log))) == 2


def test_the_total_limit_counts_over_points(tmp_path: Path) -> None:
    log = tmp_path / "log"
    points = "limit=1;participant.in-handler=kill@1;participant.after-reply=kill@1"
    assert run(points, log).returncode == -signal.SIGKILL
    assert run(points, log).stdout == "survived\n"


def test_a_stopped_process_goes_on_when_it_is_continued(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = os.environ | {
        "SAGAKIT_FAILPOINTS": "participant.in-handler=stop@1:limit=1",
        "SAGAKIT_FAILPOINT_LOG": str(log),
    }
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert output == "survived\n"


def test_a_restarted_process_draws_differently(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(4):
        run("participant.in-handler=kill@0.2:3", log)
    assert len({acted.passes for acted in read_log(log)}) > 1


def test_unarmed_points_do_nothing() -> None:
    arm({})
    failpoint("participant.in-handler")


@pytest.mark.parametrize(
    ("points", "complaint"),
    [
        ("participant.in-handlr=kill@1", "no point"),
        ("participant.in-handler=explode@1", "no action"),
        ("participant.in-handler=kill@2", "not a probability"),
        ("participant.in-handler=kill@often", "not a probability"),
        ("participant.in-handler=kill@1:soon", "not a whole number"),
        ("participant.in-handler=kill@1:every=3", "no option"),
        ("participant.in-handler=kill@1:limit=3", "SAGAKIT_FAILPOINT_LOG"),
        ("limit=3", "SAGAKIT_FAILPOINT_LOG"),
        ("participant.in-handler=kill@1;participant.in-handler=stop@1", "twice"),
    ],
)
def test_what_cannot_be_read_is_refused(points: str, complaint: str) -> None:
    with pytest.raises(FailpointError, match=complaint):
        arm({"SAGAKIT_FAILPOINTS": points})
