"""What the README says is so: its first saga runs, its files exist, its demo is the demo."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sagakit.cli.main import run
from sagakit.testing.kafka import KafkaServer
from sagakit.testing.process import Process
from sagakit.testing.registry import RealRegistry

pytestmark = pytest.mark.acceptance

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]+)\)")
NAMED = re.compile(r"`(?P<path>(?:tests|sagakit|services|schemas|docs|deploy)/[\w./-]+)`")


def commands(block: str) -> list[str]:
    """The commands of the console block that stands under the comment `block`."""
    found = re.search(rf"<!-- {block} -->\n```console\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"the README has no console block {block!r}"
    return [line.removeprefix("$ ") for line in found[1].splitlines() if line.startswith("$ ")]


@pytest.fixture
def first_saga(tmp_path: Path) -> Path:
    """A folder with the files of the README's first saga."""
    for found in FILE.finditer(README):
        file = tmp_path / found["name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found["text"], encoding="utf-8")
    return tmp_path


def test_it_has_the_two_commands_and_the_makefile_has_them_too() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"$ make {target}" in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo_runs_by_its_command() -> None:
    done = subprocess.run(["make", "demo"], cwd=PROJECT, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every book balances" in done.stdout


@pytest.mark.parametrize("document", ["README.md", "docs/demo.md"])
def test_every_file_that_is_named_exists(document: str) -> None:
    text = (PROJECT / document).read_text(encoding="utf-8")
    here = (PROJECT / document).parent
    named = {found["path"] for found in NAMED.finditer(FILE.sub("", text))}
    missing = [path for path in named if not (PROJECT / path).exists() and not path.startswith("schemas/hotel.")]
    missing += [found["path"] for found in LINK.finditer(text) if not (here / found["path"]).exists()]
    assert missing == []


def test_the_first_sagas_definition_has_no_findings(first_saga: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["definitions", "lint", str(first_saga / "booking.yaml"), "--schemas", str(first_saga / "schemas")]) == 0
    output = capsys.readouterr().out
    assert "no errors" in output
    assert "warning" not in output


def test_the_first_sagas_service_fits_its_schemas(first_saga: Path) -> None:
    """In a process of its own, as a user's program: its models have the fields of the schemas."""
    script = """
import json, pathlib, rooms
handler, = rooms.app.commands.values()
for model in (handler.model, handler.reply):
    name = model.__avro_record__
    schema = json.loads(pathlib.Path(f"schemas/{name}.avsc").read_text())
    assert f"{schema['namespace']}.{schema['name']}" == name
    assert [field["name"] for field in schema["fields"]] == list(model.model_fields), name
"""
    subprocess.run([sys.executable, "-c", script], cwd=first_saga, check=True, timeout=60)


@pytest.mark.kafka
@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_first_saga_runs_by_the_commands_of_the_readme(
    first_saga: Path, kafka: KafkaServer, registry: RealRegistry, topic_prefix: str
) -> None:
    environment = {
        "SAGAKIT_BOOTSTRAP": kafka.bootstrap,
        "SAGAKIT_REGISTRY_URL": registry.url,
        "SAGAKIT_TOPIC_PREFIX": topic_prefix,
        "SAGAKIT_PARTITIONS": "2",
        "SAGAKIT_REPLICATION_FACTOR": "1",
    }
    for command in commands("set up"):
        shell(command, first_saga, environment)
    with processes(commands("run"), first_saga, environment) as running:
        start, history = commands("use")
        shell(start, first_saga, environment)

        def completed() -> bool:
            told = shell(f"{history} --json", first_saga, environment, check=False)
            return told.startswith(("[", "{")) and '"completed"' in told

        running[0].wait_until(completed, timeout_s=120, what="done with the booking")
        story = shell(history, first_saga, environment)
    assert "hotel.BookRoom to rooms" in story
    assert "COMPLETED" in story


def shell(command: str, folder: Path, environment: Mapping[str, str], *, check: bool = True) -> str:
    """Run a line of the README in a shell that finds `sagakit`; what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env={**os.environ, **environment, "PATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def processes(lines: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[list[Process]]:
    """Commands that run on, as processes that end with the block."""
    with ExitStack() as ending:
        running = []
        for number, line in enumerate(lines):
            _, *arguments = line.split()
            command = [sys.executable, "-m", "sagakit.cli.main", *arguments]
            process = Process.start(
                f"shell-{number}",
                command,
                log_directory=folder / "logs",
                environment=environment,
                working_directory=folder,
            )
            running.append(ending.enter_context(process))
        yield running
