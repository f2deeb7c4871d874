"""Child processes on the real operating system: awaited, signalled, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sagakit.testing.errors import ProcessError
from sagakit.testing.ports import PortLease
from sagakit.testing.process import _START_GATE, Process

SAY_AND_WAIT = [sys.executable, "-u", "-c", "import time; print('ready at 7'); time.sleep(600)"]
ANSWER_SIGTERM = [
    sys.executable,
    "-u",
    "-c",
    "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\nprint('ready'); time.sleep(600)",
]
IGNORE_SIGTERM = [
    sys.executable,
    "-u",
    "-c",
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready'); time.sleep(600)",
]


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Process]:
    with Process.start("child", SAY_AND_WAIT, log_directory=tmp_path) as process:
        yield process


def test_line_of_output_is_found_also_when_it_came_before(child: Process) -> None:
    assert child.wait_for_line(r"ready at (\d)", timeout_s=20)[1] == "7"
    assert child.wait_for_line(r"ready at (\d)", timeout_s=20)[1] == "7"


def test_wait_for_a_line_ends_with_the_process_and_shows_its_log(tmp_path: Path) -> None:
    child = Process.start("child", ["/bin/sh", "-c", "echo no memory; exit 4"], log_directory=tmp_path)
    with pytest.raises(ProcessError, match=r"exit code 4(?s:.*)no memory"):
        child.wait_for_line("ready", timeout_s=60)


def test_last_line_of_a_process_that_ended_is_found(tmp_path: Path) -> None:
    child = Process.start("child", ["/bin/sh", "-c", "echo done"], log_directory=tmp_path)
    assert child.wait(timeout_s=20) == 0
    assert child.wait_for_line("done", timeout_s=20)[0] == "done"


def test_wait_says_what_was_awaited_when_time_is_up(child: Process) -> None:
    with pytest.raises(ProcessError, match=r"child \(process \d+\): not listening on port 1 within 0.1 s"):
        child.wait_for_port(1, timeout_s=0.1)


def test_port_is_awaited(tmp_path: Path) -> None:
    lease = PortLease.free(1)
    server = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(lease.ports[0])]
    with Process.start("server", server, log_directory=tmp_path) as process:
        process.wait_for_port(lease.ports[0], timeout_s=20)
    lease.release()
    assert not process.is_running


def test_a_second_process_of_the_same_name_does_not_see_the_output_of_the_first(tmp_path: Path) -> None:
    Process.start("child", ["/bin/sh", "-c", "echo first"], log_directory=tmp_path).wait(timeout_s=20)
    second = Process.start("child", ["/bin/sh", "-c", "echo second"], log_directory=tmp_path)
    second.wait(timeout_s=20)
    assert second.output() == "second\n"
    assert second.log_path.read_text() == "first\nsecond\n"


def test_terminate_lets_the_process_answer(tmp_path: Path) -> None:
    child = Process.start("child", ANSWER_SIGTERM, log_directory=tmp_path)
    child.wait_for_line("ready", timeout_s=20)
    assert child.terminate(timeout_s=20) == 3
    assert child.terminate(timeout_s=20) == 3


def test_terminate_kills_a_process_that_will_not_end(tmp_path: Path) -> None:
    child = Process.start("child", IGNORE_SIGTERM, log_directory=tmp_path)
    child.wait_for_line("ready", timeout_s=20)
    assert child.terminate(timeout_s=0.2) == -signal.SIGKILL


def test_terminate_wakes_a_paused_process(tmp_path: Path) -> None:
    child = Process.start("child", ANSWER_SIGTERM, log_directory=tmp_path)
    child.wait_for_line("ready", timeout_s=20)
    child.pause()
    assert child.terminate(timeout_s=20) == 3


def test_pause_and_resume(child: Process) -> None:
    child.pause()
    child.wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, timeout_s=20, what="stopped")
    assert child.is_running
    child.resume()
    child.wait_until(lambda: psutil.Process(child.pid).status() != psutil.STATUS_STOPPED, timeout_s=20, what="running")


def test_kill_reaches_a_paused_process_and_its_children(tmp_path: Path) -> None:
    child = Process.start("child", ["/bin/sh", "-c", "sleep 600 & echo $!; wait"], log_directory=tmp_path)
    grandchild = psutil.Process(int(child.wait_for_line(r"^\d+$", timeout_s=20)[0]))
    child.pause()
    assert child.kill() == -signal.SIGKILL
    gone, alive = psutil.wait_procs([grandchild], timeout=20)
    assert (gone, alive) == ([grandchild], [])


def test_missing_executable_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="no executable 'no-such-thing'"):
        Process.start("child", ["no-such-thing"], log_directory=tmp_path)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_parent_that_dies_leaves_no_child(tmp_path: Path, end: signal.Signals) -> None:
    script = (
        "import sys, time; from pathlib import Path; from sagakit.testing.process import Process\n"
        "children = [Process.start(name, ['/bin/sh', '-c', 'sleep 600; true'], log_directory=Path(sys.argv[1]))"
        " for name in ('one', 'two')]\n"
        "children[1].pause()\n"
        "print(*(child.pid for child in children), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.send_signal(end)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_forked_copy_of_the_parent_does_not_keep_its_children_alive(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from sagakit.testing.process import Process\n"
        "child = Process.start('child', ['sleep', '600'], log_directory=Path(sys.argv[1]))\n"
        "copy = os.fork()\n"
        "if copy: print(child.pid, copy, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child, copy = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
        parent.kill()
    try:
        _, alive = psutil.wait_procs([child], timeout=20)
        assert alive == []
        assert copy.is_running()
    finally:
        copy.kill()


def test_parent_that_dies_before_the_go_ahead_leaves_nothing_started(tmp_path: Path) -> None:
    """The gate before the command: if the parent is gone before it gave the go-ahead, the command never runs."""
    trace = tmp_path / "trace"
    gate = subprocess.Popen([*_START_GATE, "touch", str(trace)], stdin=subprocess.PIPE)
    assert gate.stdin is not None
    gate.stdin.close()  # what the operating system does when the parent dies
    assert gate.wait(timeout=20) != 0
    assert not trace.exists()


def test_leased_ports_are_not_leased_twice() -> None:
    lease = PortLease.free(3)
    try:
        assert len(set(lease.ports)) == 3
        probe = f"from sagakit.testing.ports import PortLease; PortLease.exactly(({lease.ports[1]},))"
        other = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
        assert f"Port {lease.ports[1]} of 127.0.0.1 is in use" in other.stderr
    finally:
        lease.release()
    PortLease.exactly(lease.ports).release()


def test_environment_is_added_to_ours(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", 'echo "$SAGAKIT_PROBE $HOME"']
    child = Process.start("child", command, log_directory=tmp_path, environment={"SAGAKIT_PROBE": "x"})
    child.wait(timeout_s=20)
    assert child.output() == f"x {os.environ['HOME']}\n"
