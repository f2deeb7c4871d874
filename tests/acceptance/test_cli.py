"""`sagakit` as a user runs it: real processes, a real broker, a real registry."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from sagakit.app import inspection
from sagakit.app.published import read_catalogue
from sagakit.app.settings import Settings
from sagakit.cli import exits
from sagakit.ports.log import TopicPartition
from sagakit.testing.kafka import KafkaServer
from sagakit.testing.process import Process
from sagakit.testing.registry import RealRegistry
from services.demo_orders import PARKING_ORDERS_FILE
from tests.waiting import until

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.registry,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

ROOT = Path(__file__).parents[2]
PLACE_ORDER = ROOT / "services" / "orders" / "place_order.yaml"
ORDERS = (ROOT / "services" / "orders" / "demo_orders.jsonl").read_text(encoding="utf-8").splitlines()
SERVICES = ("orders", "inventory", "payments", "shipping", "notifications")


@dataclass(frozen=True)
class Result:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line on standard error."""
        (line,) = self.err.splitlines()
        return line


@dataclass(frozen=True)
class Desk:
    """A user's shell: a folder with nothing in it, and the exported settings."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> Result:
        """Run a command to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "sagakit.cli.main", *arguments],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, name: str, *arguments: str) -> Process:
        """Start a command that runs on."""
        return Process.start(
            name,
            [sys.executable, "-m", "sagakit.cli.main", *arguments],
            log_directory=self.folder / "logs",
            environment=self.environment,
            working_directory=self.folder,
        )


def desk_at(folder: Path, bootstrap: str, registry_url: str, prefix: str) -> Desk:
    environment = {
        "SAGAKIT_BOOTSTRAP": bootstrap,
        "SAGAKIT_REGISTRY_URL": registry_url,
        "SAGAKIT_TOPIC_PREFIX": prefix,
        "SAGAKIT_PARTITIONS": "3",
        "SAGAKIT_REPLICATION_FACTOR": "1",
        "SHOP_DATA": str(folder / "ledgers"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    (folder / "ledgers").mkdir(parents=True, exist_ok=True)
    return Desk(folder, environment)


@pytest.fixture
def desk(kafka: KafkaServer, registry: RealRegistry, topic_prefix: str, tmp_path: Path) -> Desk:
    return desk_at(tmp_path, kafka.bootstrap, registry.url, topic_prefix)


@pytest.fixture(scope="module")
def shop(kafka: KafkaServer, registry: RealRegistry, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk with the shop's topics, schemas and definition, shared by tests that use different orders."""
    prefix = f"cli-shop-{uuid.uuid4().hex[:8]}."
    desk = desk_at(tmp_path_factory.mktemp("shop"), kafka.bootstrap, registry.url, prefix)
    apply(desk)
    assert publish(desk, PLACE_ORDER).code == exits.DONE
    return desk


def apply(desk: Desk) -> None:
    """Make the shop's topics, and register its schemas."""
    apps = [word for name in SERVICES for word in ("--app", f"services.{name}.app:app")]
    assert desk.run("topics", "apply", *apps).code == exits.DONE
    assert desk.run("schemas", "register", str(ROOT / "schemas")).code == exits.DONE


def publish(desk: Desk, file: Path) -> Result:
    return desk.run("definitions", "publish", str(file), "--schemas", str(ROOT / "schemas"), "--by", "kim", "--json")


def placed(desk: Desk, number: int) -> tuple[str, str]:
    """The order with this number: its key and a file with its fields."""
    order = json.loads(ORDERS[number])
    file = desk.folder / f"order-{number}.json"
    file.write_text(json.dumps(order), encoding="utf-8")
    return order["order_id"], str(file)


class TestTopics:
    def test_are_made_once_and_then_are_as_they_must_be(self, desk: Desk, topic_prefix: str) -> None:
        missing = desk.run("topics", "check", "--json")
        assert missing.code == exits.NO
        assert {one["setting"] for one in missing.json} == {"topic"}
        made = desk.run("topics", "apply", "--service", "payments", "--topic", "audit.events", "--json")
        assert made.code == exits.DONE, made.err
        assert made.json["namespace_written"] is True
        assert {f"{topic_prefix}payments.commands", f"{topic_prefix}audit.events"} <= set(made.json["made"])
        again = desk.run("topics", "apply", "--service", "payments", "--topic", "audit.events", "--json")
        assert again.json == {"made": [], "namespace_written": False, "differences": []}
        assert desk.run("topics", "check", "--service", "payments").code == exits.DONE

    def test_another_partition_count_is_refused_for_the_life_of_the_namespace(self, desk: Desk) -> None:
        """Rule 6: another partition count moves sagas."""
        assert desk.run("topics", "apply").code == exits.DONE
        other = Desk(desk.folder, {**desk.environment, "SAGAKIT_PARTITIONS": "5"})
        refused = other.run("topics", "apply")
        assert refused.code == exits.REFUSED
        assert "SAGAKIT_PARTITIONS=3" in refused.error
        assert other.run("topics", "check").code == exits.NO

    def test_the_printed_commands_need_no_broker(self, desk: Desk, topic_prefix: str) -> None:
        away = Desk(desk.folder, {**desk.environment, "SAGAKIT_BOOTSTRAP": "kafka:9092"})
        printed = away.run("topics", "apply", "--print")
        assert printed.code == exits.DONE
        lines = printed.out.splitlines()
        assert len(lines) == 6
        assert all(line.startswith("kafka-topics.sh --bootstrap-server kafka:9092 --create") for line in lines)


class TestDefinitions:
    def test_are_published_once_and_never_changed(self, shop: Desk) -> None:
        again = publish(shop, PLACE_ORDER)
        assert (again.code, again.json[0]["outcome"]) == (exits.DONE, "unchanged")
        changed = shop.folder / "changed.yaml"
        changed.write_text(PLACE_ORDER.read_text(encoding="utf-8").replace("deadline: 15m", "deadline: 16m"))
        refused = publish(shop, changed)
        assert (refused.code, refused.json[0]["outcome"]) == (exits.REFUSED, "refused")
        listed = shop.run("definitions", "list", "--json")
        assert [(one["name"], one["version"]) for one in listed.json] == [("place-order", 1)]
        assert shop.run("definitions", "show", "place-order").out.strip() == PLACE_ORDER.read_text().strip()
        assert shop.run("definitions", "show", "nothing").code == exits.NO

    def test_what_cannot_run_yet_is_not_published(self, desk: Desk) -> None:
        """Rule 21: one record that the broker refuses stops one saga."""
        nowhere = publish(desk, PLACE_ORDER)
        assert nowhere.code == exits.REFUSED
        assert "`sagakit topics apply`" in nowhere.error
        assert desk.run("topics", "apply").code == exits.DONE
        assert desk.run("schemas", "register", str(ROOT / "schemas")).code == exits.DONE
        refused = publish(desk, PLACE_ORDER)
        assert refused.code == exits.REFUSED
        assert "inventory.commands" in refused.error
        assert "sagakit topics apply" in refused.error
        assert desk.run("definitions", "list", "--json").json == []

    def test_are_valid_from_where_their_trigger_topic_ends(
        self, desk: Desk, kafka: KafkaServer, registry: RealRegistry, topic_prefix: str
    ) -> None:
        """Rule 9: what was published before the definition was starts nothing, and everything after it does."""
        apply(desk)
        trigger = f"{topic_prefix}orders.events"
        producer = Producer(kafka.client_properties())
        for _ in range(4):
            producer.produce(trigger, b"an old order", partition=1)
        assert producer.flush(30) == 0
        assert publish(desk, PLACE_ORDER).code == exits.DONE
        settings = Settings(bootstrap=kafka.bootstrap, registry_url=registry.url, topic_prefix=topic_prefix)
        published = read_catalogue(settings).definitions["place-order", 1]
        assert published.first_offsets == {TopicPartition(trigger, n): 4 if n == 1 else 0 for n in range(3)}


class TestSagas:
    def test_a_start_waits_for_an_orchestrator_then_runs_and_its_story_is_told(self, shop: Desk) -> None:
        key, file = placed(shop, 0)
        sent = shop.run("start", "place-order", key, "--payload", file, "--json")
        assert sent.code == exits.DONE, sent.err
        saga_id = sent.json["saga_id"]
        waiting = shop.run("status", saga_id, "--json")
        assert (waiting.code, waiting.json["status"], waiting.json["waiting_in_inbox"]) == (exits.NO, "unknown", 1)
        untold = shop.run("history", saga_id)
        assert untold.code == exits.NO
        assert "sagakit status" in untold.error
        with self.running(shop, "orchestrator", *SERVICES) as processes:
            self.becomes(processes, shop, saga_id, "completed")
            by_key = shop.run("status", "--definition", "place-order", "--key", key, "--json")
            assert by_key.json["saga_id"] == saga_id
            for process in processes:
                assert process.terminate(timeout_s=20) == exits.DONE, process.log_tail()
        told = shop.run("history", saga_id)
        assert told.code == exits.DONE
        assert "COMPLETED" in told.out
        assert told.out.count('"card_token":"***"') == 2, "of the order, and of the command that charges the card"
        for_a_script = shop.run("history", saga_id, "--json")
        assert len(re.findall(r'card_token[\\": ]+\*\*\*', for_a_script.out)) == 2
        token = json.loads(Path(file).read_text(encoding="utf-8"))["card_token"]
        for output in (told.out, for_a_script.out, told.err, for_a_script.err, *(one.output() for one in processes)):
            assert token not in output
        assert all("starts" in one.output() for one in processes), "there are logs, of each of them"
        (story,) = for_a_script.json
        assert story["outcome"] == "completed"
        assert [line["seq"] for line in story["lines"]] == list(range(1, len(story["lines"]) + 1))

    def test_a_person_cancels_with_a_reason(self, shop: Desk) -> None:
        key, file = placed(shop, 1)
        saga_id = shop.run("start", "place-order", key, "--payload", file, "--json").json["saga_id"]
        with self.running(shop, "orchestrator") as (orchestrator,):  # nobody answers the first command
            self.becomes([orchestrator], shop, saga_id, "running")
            assert shop.run("cancel", saga_id).code == exits.WRONG
            cancelled = shop.run("cancel", saga_id, "--reason", "ordered twice", "--actor", "kim", "--ticket", "T-1")
            assert cancelled.code == exits.DONE
            self.becomes([orchestrator], shop, saga_id, "compensating")
            assert shop.run("retry", saga_id, "--reason", "no").code == exits.DONE
            orchestrator.wait_until(
                lambda: "retry refused" in shop.run("history", saga_id).out, timeout_s=60, what="seen to refuse"
            )
            assert shop.run("parked").code == exits.DONE
        assert "cancel requested (by kim, T-1: ordered twice)" in shop.run("history", saga_id).out

    def test_a_person_says_what_became_of_a_pivot_that_nobody_answered_for(self, shop: Desk) -> None:
        """Three orders to a carrier that is never heard of again: it took one, two it did not, says its own book."""
        lines = PARKING_ORDERS_FILE.read_text(encoding="utf-8").splitlines()
        silent = next(order for order in map(json.loads, lines) if order["address"]["country"] == "IS")
        took, lost, later = (f"silent-{number}" for number in range(3))
        ids = {key: self.started(shop, {**silent, "order_id": key}) for key in (took, lost, later)}
        parcel = shop.folder / "parcel.json"
        parcel.write_text('{"parcel_id": "parcel-17", "carrier": "Northern Silence", "tracking": null}')
        with self.running(shop, "orchestrator", *SERVICES) as processes:
            for saga_id in ids.values():
                self.becomes(processes, shop, saga_id, "parked")
            listed = shop.run("parked", "--json")
            assert listed.code == exits.NO
            assert set(ids.values()) <= {one["saga_id"] for one in listed.json}
            assert re.search(rf"{ids[took]}.*ship may have happened", shop.run("parked").out)

            def decided(verb: str, key: str, *arguments: str, until_it_is: str) -> None:
                who = ("--definition", "place-order", "--key", key, "--reason", "asked the carrier", "--actor", "kim")
                assert shop.run(verb, *who, *arguments).code == exits.DONE
                self.becomes(processes, shop, ids[key], until_it_is)

            assert shop.run("cancel", ids[lost], "--reason", "too slow").code == exits.DONE
            processes[0].wait_until(
                lambda: "cancel refused: ship may have happened" in shop.run("history", ids[lost]).out,
                timeout_s=60,
                what="seen to refuse a cancel that does not name the pivot",
            )
            decided("cancel", lost, "--step", "ship", until_it_is="compensated")
            assert shop.run("skip", ids[took], "--step", "ship", "--reason", "x", "--reply", "/nowhere").code == 2
            decided("skip", took, "--step", "ship", "--reply", str(parcel), until_it_is="completed")
            assert shop.run("retry", ids[later], "--step", "ship", "--reason", "try again").code == exits.DONE
            processes[0].wait_until(
                lambda: "attempt 10" in shop.run("history", ids[later]).out, timeout_s=90, what="tried five times more"
            )
            self.becomes(processes, shop, ids[later], "parked")
            decided("skip", later, "--reply", str(parcel), until_it_is="completed")
        assert "skipped by hand (by kim: asked the carrier)" in shop.run("history", ids[took]).out

    def test_a_start_that_does_not_fit_is_not_sent(self, shop: Desk) -> None:
        file = shop.folder / "wrong.json"
        file.write_text('{"order_id": 5}')
        wrong = shop.run("start", "place-order", "o-1", "--payload", str(file))
        assert (wrong.code, "order_id" in wrong.error) == (exits.WRONG, True)
        unknown = shop.run("start", "place-odrer", "o-1", "--payload", str(file))
        assert (unknown.code, "place-order" in unknown.error) == (exits.NO, True)

    @staticmethod
    def started(desk: Desk, order: dict[str, Any]) -> str:
        """Start the saga of an order by hand; its id."""
        file = desk.folder / f"{order['order_id']}.json"
        file.write_text(json.dumps(order), encoding="utf-8")
        sent = desk.run("start", "place-order", order["order_id"], "--payload", str(file), "--json")
        assert sent.code == exits.DONE, sent.err
        return str(sent.json["saga_id"])

    @staticmethod
    def becomes(processes: list[Process], desk: Desk, saga_id: str, word: str) -> None:
        """Wait until the saga's state is `word`; asked within this process, where a look costs milliseconds."""
        named = {name.removeprefix("SAGAKIT_").lower(): value for name, value in desk.environment.items()}
        own: dict[str, Any] = {name: value for name, value in named.items() if name in Settings.model_fields}
        settings = Settings.load(**own)

        def is_so() -> bool:
            for process in processes:
                assert process.is_running, process.log_tail()
            return inspection.state_word(inspection.find(settings, saga_id, lambda _done, _of: None).state) == word

        processes[0].wait_until(is_so, timeout_s=90, what=f"done with what makes the saga {word}")

    @staticmethod
    def running(desk: Desk, *names: str) -> "Running":
        return Running(desk, names)


class Running:
    """Processes of sagakit, stopped at the end of the block."""

    def __init__(self, desk: Desk, names: tuple[str, ...]) -> None:
        self._desk = desk
        self._names = names
        self._processes: list[Process] = []

    def __enter__(self) -> list[Process]:
        for name in self._names:
            command = ("orchestrator",) if name == "orchestrator" else ("service", f"services.{name}.app:app")
            self._processes.append(self._desk.start(name, *command, "--instance", f"{name}-1"))
        return self._processes

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()


class TestProcesses:
    def test_refuse_to_run_without_their_topics(self, desk: Desk) -> None:
        """Rule 5: a topic that comes into being by use forgets."""
        refused = desk.run("orchestrator")
        assert refused.code == exits.REFUSED
        assert "sagakit topics apply" in refused.err.splitlines()[-1]

    def test_wait_for_a_broker_that_is_away_and_end_at_a_signal(self, desk: Desk) -> None:
        away = Desk(desk.folder, {**desk.environment, "SAGAKIT_BOOTSTRAP": "127.0.0.1:1", "SAGAKIT_LOG_FORMAT": "json"})
        with away.start("orchestrator", "orchestrator", "--health-port", "0") as process:
            waiting = process.wait_for_line(r"waiting for Kafka", timeout_s=60)
            line = json.loads(waiting.string)
            assert (line["level"], line["bootstrap"]) == ("warning", "127.0.0.1:1")
            assert process.terminate(timeout_s=30) == exits.DONE

    def test_services_and_settings_that_are_wrong_are_told_in_one_line(self, desk: Desk) -> None:
        wrong = desk.run("service", "services.nowhere:app")
        assert (wrong.code, "services.nowhere" in wrong.error) == (exits.WRONG, True)
        nothing = desk.run("service", "services.audit:app")
        assert (nothing.code, "has no 'app'" in nothing.error) == (exits.WRONG, True)


class TestServersThatAreAway:
    def test_no_broker_is_one_line_and_its_own_exit_code(self, desk: Desk) -> None:
        """All at once: each gives the broker ten seconds."""
        commands = [("topics", "check"), ("topics", "apply"), ("definitions", "list"), ("doctor",)]
        with ThreadPoolExecutor() as pool:
            results = list(pool.map(lambda command: desk.run("--bootstrap", "127.0.0.1:1", *command), commands))
        for command, result in zip(commands, results, strict=True):
            assert result.code == exits.UNREACHABLE, (command, result)
            assert "127.0.0.1:1" in result.error

    def test_no_registry_is_one_line_and_its_own_exit_code(self, desk: Desk) -> None:
        assert desk.run("topics", "apply").code == exits.DONE
        result = desk.run("--registry-url", "http://127.0.0.1:1/apis/ccompat/v7", "definitions", "list")
        assert result.code == exits.UNREACHABLE
        assert "127.0.0.1:1" in result.error


class TestDoctor:
    def test_a_real_broker_keeps_every_promise(self, desk: Desk, kafka: KafkaServer, topic_prefix: str) -> None:
        """Rule 26: a broker is examined before it is trusted."""
        result = desk.run("doctor", "--json")
        assert result.code == exits.DONE, result.out
        verdicts = {one["check"]: one["verdict"] for one in result.json}
        assert len(verdicts) == 15
        assert {name for name, verdict in verdicts.items() if verdict == "fail"} == set()
        assert verdicts["fences a stale generation"] == verdicts["waits on pending offsets"] == "ok"
        assert doctor_topics(kafka, topic_prefix) == []

    def test_ctrl_c_ends_it_and_what_it_made_is_removed(
        self, desk: Desk, kafka: KafkaServer, topic_prefix: str
    ) -> None:
        with desk.start("doctor", "doctor") as process:
            process.wait_until(
                lambda: bool(doctor_topics(kafka, topic_prefix)), timeout_s=60, what="the doctor's first topic"
            )
            process.interrupt()
            assert process.wait(timeout_s=60) == exits.INTERRUPTED
        assert "Traceback" not in process.output()
        until(lambda: doctor_topics(kafka, topic_prefix) == [], timeout_s=30, what="the removal of its topics")


def doctor_topics(kafka: KafkaServer, prefix: str) -> list[str]:
    listed = AdminClient(kafka.client_properties()).list_topics(timeout=30).topics
    return [name for name in listed if name.startswith(f"{prefix}sagakit-doctor-")]


class TestDev:
    @pytest.fixture
    def home(self, tmp_path: Path, startable: None) -> Iterator[Path]:
        """Where `dev` keeps its data; `startable` says whether servers can be had here at all."""
        home = tmp_path / "dev"
        yield home
        shutil.rmtree(home, ignore_errors=True)

    def test_a_restart_keeps_topics_records_and_schema_ids(self, home: Path, tmp_path: Path) -> None:
        empty = Desk(tmp_path, {"COLUMNS": "200", "SAGAKIT_NAMESPACE": "desk"})
        dev = ("dev", "--directory", str(home), "--partitions", "2", "--json")
        with empty.start("dev", *dev) as process:
            exported = self.exported(process)
            desk = Desk(tmp_path, {**exported, "COLUMNS": "200"})
            assert desk.run("topics", "check").code == exits.DONE
            assert empty.run(*dev).code == exits.REFUSED, "only one at a time"
            registered = desk.run("schemas", "register", "--json").json
            process.interrupt()
            assert process.wait(timeout_s=60) == exits.DONE
        with empty.start("dev", *dev) as process:
            assert self.exported(process) == exported, "the same addresses"
            assert desk.run("topics", "check").code == exits.DONE, "topics, and the namespace's record"
            assert desk.run("schemas", "register", "--json").json == registered, "schema ids"
            process.terminate(timeout_s=60)

    @staticmethod
    def exported(process: Process) -> dict[str, str]:
        """What it says to export, once it runs."""
        process.wait_for_line(r"^}$", timeout_s=110)
        told: dict[str, dict[str, str]] = json.loads(process.output())
        return told["environment"]


def test_ctrl_c_during_a_long_command_is_quiet(desk: Desk) -> None:
    """The broker takes connections and never answers: the command is in the midst of waiting for it."""
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(60)
        address = f"127.0.0.1:{broker.getsockname()[1]}"
        mute = Desk(desk.folder, {**desk.environment, "SAGAKIT_BOOTSTRAP": address})
        with mute.start("check", "topics", "check") as process:
            connection, _ = broker.accept()
            with connection:
                process.interrupt()
                assert process.wait(timeout_s=30) == exits.INTERRUPTED
    assert process.output() == ""
