"""`sagakit demo` as a user runs it: what it prints, what its exit code says, what is left when it is interrupted."""

import json
import re
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from sagakit.cli.main import run
from sagakit.demo.embedded import embedded_stage
from sagakit.testing.kafka import KafkaServer
from sagakit.testing.process import Process
from sagakit.testing.registry import RealRegistry
from services.demo_orders import PARKING_ORDERS_FILE, read_orders
from tests.waiting import until

pytestmark = pytest.mark.acceptance

COMMAND = (sys.executable, "-m", "sagakit.cli.main", "demo")
WIDE = {"COLUMNS": "160", "PYTHONUNBUFFERED": "1"}
PROJECT = Path(__file__).parents[2]
BOOKS = ("money", "stock", "notifications", "ledgers", "backlog")


def demo(name: str, folder: Path, *arguments: str) -> Process:
    """Start the demo; what it prints goes to `<folder>/<name>.log`."""
    return Process.start(name, [*COMMAND, *arguments], log_directory=folder, environment=WIDE)


def row(output: str, what: str) -> str:
    """The one line of a table that begins with `what`."""
    (line,) = [line for line in output.splitlines() if re.match(rf"\s*{re.escape(what)}\s\s", line)]
    return line


def number(output: str, what: str) -> int:
    """The first number of a row."""
    found = re.search(r"\d[\d,]*", row(output, what).replace(what, "", 1))
    assert found is not None
    return int(found[0].replace(",", ""))


def verdict_in(output: str) -> Any:
    """The verdict for scripts, among what is for people."""
    (line,) = [line for line in output.splitlines() if line.startswith("{")]
    return json.loads(line)


class OwnProcesses:
    """Every process that a demo, or one that it started, was seen to start; `servers` are the ids of the Javas."""

    def __init__(self, demo: Process) -> None:
        self._demo = demo
        self._seen: dict[int, psutil.Process] = {}
        self.servers: set[int] = set()

    def look(self) -> None:
        """Take note of those that run now."""
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self._demo.pid).children(recursive=True):
                self._seen.setdefault(one.pid, one)
                with suppress(psutil.NoSuchProcess):
                    if one.name() == "java":
                        self.servers.add(one.pid)

    def until(self, condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
        """Wait for `condition`, and look meanwhile."""

        def looked() -> bool:
            self.look()
            return condition()

        self._demo.wait_until(looked, timeout_s=timeout_s, what=what)

    def until_it_ends(self, *, timeout_s: float) -> int:
        """Wait for the end of the demo, and look meanwhile; its exit code."""

        def looked() -> bool:
            self.look()
            return not self._demo.is_running

        until(looked, timeout_s=timeout_s, what="the end of the demo")
        return self._demo.wait(timeout_s=1)

    def left(self) -> list[psutil.Process]:
        """Those that have not ended."""
        _, alive = psutil.wait_procs(list(self._seen.values()), timeout=10)
        return alive


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """What one run of the default demo printed, and the folder that it kept."""
    folder = tmp_path_factory.mktemp("demo")
    process = demo("demo", folder, "--keep", str(folder / "kept"))
    try:
        assert process.wait(timeout_s=110) == 0, process.output()
        yield process.output(), folder / "kept"
    finally:
        process.kill()


def test_it_says_first_what_the_embedded_kafka_cannot_promise(played: tuple[str, Path]) -> None:
    output, _ = played
    assert output.index("no transaction isolation, no fencing") < output.index("Orders")
    assert "--kafka --kill" in output


def test_every_order_of_the_file_ends_one_way_or_another(played: tuple[str, Path]) -> None:
    output, _ = played
    assert number(output, "placed") == 300
    ended = [number(output, what) for what in ("completed", "compensated", "parked, wait for a person")]
    assert sum(ended) == 300
    assert ended[0] > 0
    reasons = [number(output, f"  {reason}") for reason in re.findall(r"^\s+(\w+: [A-Z_]+)\s", output, re.MULTILINE)]
    assert len(reasons) >= 3, "orders are undone for more than one reason"
    assert sum(reasons) == ended[1]


def test_the_readme_shows_what_it_prints(played: tuple[str, Path]) -> None:
    """Counts are those of the file's orders; times and, where the last pieces are fought for, amounts differ."""
    output, _ = played
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- demo -->")[1].split("```")[1]
    counts = [line for line in shown.splitlines() if re.search(r"\d+%$", line)]
    assert len(counts) == 6
    for line in counts:
        assert line.split() in [printed.split() for printed in output.splitlines()], line
    for book in BOOKS:
        assert row(shown, book).rstrip().endswith("balances")


def test_it_tells_how_long_orders_took(played: tuple[str, Path]) -> None:
    output, _ = played
    assert re.search(r"p50\s+p90\s+p99\s+slowest", output)


def test_it_tells_one_story_of_each_kind(played: tuple[str, Path]) -> None:
    output, _ = played
    completed, compensated = output.split("A completed order")[1].split("A compensated order")
    assert re.search(r"place-order/order-1-\d{5} .*: completed after", completed)
    assert "COMPLETED" in completed
    for undone in ("RefundCard to payments", "ReleaseStock to inventory", "COMPENSATED"):
        assert undone in compensated


def test_every_book_balances(played: tuple[str, Path]) -> None:
    output, _ = played
    for book in BOOKS:
        assert row(output, book).rstrip().endswith("balances"), row(output, book)
    assert "Every book balances." in output


@pytest.mark.parametrize(
    ("book", "service", "change"),
    [
        ("money", "payments", "UPDATE payments SET refunded_cents = charged_cents WHERE rowid = 1"),
        ("stock", "inventory", "UPDATE stock SET on_hand = on_hand - 1, shipped = shipped + 1 WHERE on_hand > 100"),
        (
            "notifications",
            "notifications",
            "INSERT INTO notifications SELECT 'again', saga_id, order_id, kind, message FROM notifications LIMIT 1",
        ),
        (
            "ledgers",
            "shipping",
            "DELETE FROM effects WHERE rowid = (SELECT min(rowid) FROM effects WHERE what = 'effect')",
        ),
        ("ledgers", "inventory", "UPDATE calls SET idempotency_key = 'nobody' WHERE what = 'undo'"),
    ],
)
def test_books_that_were_tampered_with_do_not_balance(
    played: tuple[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    book: str,
    service: str,
    change: str,
) -> None:
    _, kept = played
    monkeypatch.setenv("COLUMNS", WIDE["COLUMNS"])
    tampered = tmp_path / "tampered"
    shutil.copytree(kept, tampered)
    with closing(sqlite3.connect(tampered / "ledgers" / f"{service}.sqlite")) as connection, connection:
        assert connection.execute(change).rowcount >= 1
    assert run(["demo", "--audit", str(tampered)]) == 1
    output = capsys.readouterr().out
    assert "DOES NOT BALANCE" in row(output, book)
    assert "Every book balances." not in output


def test_an_audit_of_untouched_books_agrees_also_as_json(played: tuple[str, Path], tmp_path: Path) -> None:
    _, kept = played
    audit = demo("audit", tmp_path, "--audit", str(kept), "--json")
    assert audit.wait(timeout_s=60) == 0, audit.output()
    verdict = verdict_in(audit.output())
    assert verdict["passed"] is True
    assert verdict["orders"] == 300 == verdict["completed"] + sum(verdict["compensated"].values())


@pytest.fixture(scope="module")
def parked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """What the demo printed of orders some of which need a person, and the folder that it kept."""
    folder = tmp_path_factory.mktemp("parked")
    process = demo("parked", folder, "--orders", str(PARKING_ORDERS_FILE), "--keep", str(folder / "kept"), "--json")
    try:
        assert process.wait(timeout_s=110) == 0, process.output()
        yield process.output(), folder / "kept"
    finally:
        process.kill()


def test_orders_that_need_a_person_are_listed_one_by_one_and_the_books_balance_with_them(
    parked: tuple[str, Path],
) -> None:
    output, _ = parked
    silent = [order for order in read_orders(PARKING_ORDERS_FILE) if order["address"]["country"] == "IS"]
    assert len(silent) == 2 == number(output, "parked, wait for a person")
    for order in silent:
        (line,) = re.findall(rf"^  {order['order_id']} is parked \(saga .*$", output, re.MULTILINE)
        assert "ship: " in line
        assert "Northern Silence never answered" in line
    assert "PARKED, waits for a person" in output.split("A parked order")[1]
    verdict = verdict_in(output)
    assert verdict["passed"] is True
    assert sorted(one["order_id"] for one in verdict["parked"]) == sorted(order["order_id"] for order in silent)
    assert verdict["money_cents"]["parked"] == sum(order["amount_cents"] for order in silent)
    assert verdict["stock_units"]["parked"] == sum(item["quantity"] for order in silent for item in order["items"])
    for book in BOOKS:
        assert row(output, book).rstrip().endswith("balances"), row(output, book)


def test_what_a_parked_order_holds_is_counted(
    parked: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Were the charges of parked orders left out, taking one away would not be seen."""
    output, kept = parked
    saga_id = verdict_in(output)["parked"][0]["saga_id"]
    tampered = tmp_path / "tampered"
    shutil.copytree(kept, tampered)
    with closing(sqlite3.connect(tampered / "ledgers" / "inventory.sqlite")) as connection, connection:
        connection.execute("DELETE FROM reservations WHERE saga_id = ?", (saga_id,))
    assert run(["demo", "--audit", str(tampered)]) == 1
    assert "DOES NOT BALANCE" in row(capsys.readouterr().out, "stock")


def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    process = demo("demo", tmp_path, "--rate", "20", "--keep", str(tmp_path / "kept"))
    ledger = tmp_path / "kept" / "ledgers" / "payments.sqlite"
    process.wait_until(ledger.exists, timeout_s=60, what="charging cards")
    process.interrupt()
    assert process.wait(timeout_s=20) == 130, process.output()
    assert "Traceback" not in process.output()
    assert not (tmp_path / "kept" / "account.json").exists(), "it was interrupted in the middle"


def test_the_stage_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with embedded_stage(tmp_path):
        assert len(set(threading.enumerate()) - before) > 5
    assert [thread.name for thread in set(threading.enumerate()) - before] == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--kill", "3"], 2, "go with --kafka"),
        (["--kafka", "--bootstrap", "127.0.0.1:1"], 2, "--registry-url"),
        (["--kafka", "--bootstrap", "127.0.0.1:1", "--registry-url", "http://127.0.0.1:1"], 3, "does not answer"),
        (["--audit", "."], 2, "account.json"),
        (["--keep", "."], 2, "is not empty"),
        (["--keep", "/proc/nowhere"], 2, "cannot be made"),
        (["--orders", "nowhere.jsonl"], 2, "nowhere.jsonl cannot be read"),
        (["--orders", __file__], 2, "line 1: this is not JSON"),
        (["--orders", __file__, "--sagas", "3"], 2, "choose one"),
    ],
)
def test_what_cannot_be_played_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert run(["demo", *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_a_cluster_that_exists_is_spoken_to_with_the_global_options(capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--bootstrap", "127.0.0.1:1", "--registry-url", "http://127.0.0.1:1"]
    for line in ([*there, "demo", "--kafka"], ["demo", "--kafka", *there]):
        assert run(["-X", "acks=0", *line]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert "acks cannot be set" in said


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("startable")
def test_processes_that_are_killed_under_way_leave_no_trace_in_the_books(tmp_path: Path) -> None:
    """On a Kafka and a registry of the demo's own, of which nothing is left at its end."""
    process = demo("demo", tmp_path, "--kafka", "--kill", "5", "--sagas", "200", "--keep", str(tmp_path / "kept"))
    processes = OwnProcesses(process)
    exit_code = processes.until_it_ends(timeout_s=380)
    output = process.output()
    assert exit_code == 0, output
    assert len(processes.servers) >= 2, "a broker and a registry"
    assert processes.left() == []
    assert number(output, "placed") == 200
    kills = [json.loads(line) for line in (tmp_path / "kept" / "kills.jsonl").read_text().splitlines()]
    assert len(kills) == 5
    for kill in kills:
        assert re.search(rf"{kill['who']}\s+{re.escape(kill['point'])}\s.*\s{kill['pid']}\b", output)
        assert not psutil.pid_exists(kill["pid"])
    for book in BOOKS:
        assert row(output, book).rstrip().endswith("balances"), row(output, book)


@pytest.mark.kafka
@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("startable")
@pytest.mark.parametrize("moment", ["opening", "playing"])
def test_ctrl_c_ends_the_demos_own_brokers_registry_and_processes(tmp_path: Path, moment: str) -> None:
    process = demo("demo", tmp_path, "--kafka", "--rate", "5", "--keep", str(tmp_path / "kept"))
    processes = OwnProcesses(process)
    if moment == "opening":
        processes.until(lambda: len(processes.servers) >= 2, timeout_s=100, what="starting a broker and a registry")
    else:
        ledger = tmp_path / "kept" / "ledgers" / "payments.sqlite"
        processes.until(ledger.exists, timeout_s=200, what="charging cards")
        assert len(processes.servers) >= 2, "a broker and a registry"
    process.interrupt()
    assert processes.until_it_ends(timeout_s=60) == 130, process.output()
    assert processes.left() == []
    assert "Traceback" not in process.output()


@pytest.mark.kafka
@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cluster_that_exists_is_left_as_it_was(kafka: KafkaServer, registry: RealRegistry, tmp_path: Path) -> None:
    """Interrupted in the middle, with processes at work: neither they nor topics stay behind."""
    admin = AdminClient({**kafka.client_properties(), "log_level": 0})
    before = set(admin.list_topics(timeout=10).topics)
    where = ["--bootstrap", kafka.bootstrap, "--registry-url", registry.url]
    process = demo("demo", tmp_path, "--kafka", *where, "--rate", "5", "--keep", str(tmp_path / "kept"))
    ledger = tmp_path / "kept" / "ledgers" / "payments.sqlite"
    process.wait_until(ledger.exists, timeout_s=200, what="charging cards")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 7
    process.interrupt()
    assert process.wait(timeout_s=60) == 130, process.output()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert {name for name in admin.list_topics(timeout=10).topics if not name.startswith("__")} <= before
