"""pytest fixtures of real and embedded servers; use them with `pytest_plugins = ["sagakit.testing.fixtures"]`.

`embedded_kafka` and `embedded_registry` (together: `embedded_pair`) live in this process and need nothing.

`kafka` and `registry` are real. They are started once per run, at first use, and shared: a test separates itself from
the others by `topic_prefix`. `kafka3` is shared by the tests of a module, since three brokers are a load on everything
else. A test that kills or pauses servers starts its own by `start_server`, or takes `kafka3` and leaves it whole.

Where the machine has no Java, Maven or network, the tests that need them are skipped and the summary says, in one line,
what was not proven. `SAGAKIT_REQUIRE_SERVERS=1` (set it in CI) makes that an error instead of a skip.
`SAGAKIT_TEST_BOOTSTRAP` and `SAGAKIT_TEST_REGISTRY` name a running cluster and registry to use instead; tests that
start servers in another way than by these fixtures then still need what servers are made of, and ask `startable`.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar

import pytest

from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.testing import jars
from sagakit.testing.embedded import EmbeddedKafka, EmbeddedPair
from sagakit.testing.errors import ServerUnavailableError
from sagakit.testing.kafka import ExternalKafka, KafkaCluster, KafkaServer
from sagakit.testing.registry import RealRegistry

Server = TypeVar("Server", KafkaCluster, RealRegistry)
Got = TypeVar("Got")

_unavailable = pytest.StashKey[dict[str, str]]()
_UNAVAILABLE: Final = "sagakit_unavailable"


class StartServer(Protocol):
    """The type of the fixture `start_server`."""

    def __call__(self, server: Server) -> Server:
        """Start `server`, or skip the test where servers cannot be had."""
        ...


class ExternalRegistry:
    """A registry that somebody else runs, named by `SAGAKIT_TEST_REGISTRY`."""

    def __init__(self, url: str) -> None:
        self.url = url


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers by which suites that need servers are selected."""
    config.addinivalue_line("markers", "kafka: needs a real Kafka (Java, and Maven or a filled cache)")
    config.addinivalue_line("markers", "registry: needs a real schema registry (Java, and Maven or a filled cache)")
    config.stash[_unavailable] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under pytest-xdist a worker's skips are told by the process that started it."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[_UNAVAILABLE] = session.config.stash[_unavailable]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker of pytest-xdist could not prove; a worker that crashed has told nothing."""
    node.config.stash[_unavailable].update(getattr(node, "workeroutput", {}).get(_UNAVAILABLE, {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say loudly what a skipped server leaves unproven."""
    missing = config.stash[_unavailable]
    if not missing:
        return
    skipped = [one for one in terminalreporter.stats.get("skipped", []) if _is_for_want_of(one, missing.values())]
    suites = ", ".join(sorted({one.nodeid.partition("::")[0].rpartition("/")[0] or "." for one in skipped}))
    reasons = " ".join(dict.fromkeys(reason.splitlines()[0] for reason in missing.values()))
    terminalreporter.write_line(
        f"NOT PROVEN: {' and '.join(sorted(missing))} could not be started here, so {len(skipped)} test(s) in "
        f"{suites} were skipped, and nothing in this run shows what they would show of sagakit on them. {reasons}",
        red=True,
        bold=True,
    )


def _is_for_want_of(report: pytest.TestReport, reasons: Iterable[str]) -> bool:
    """Whether this test was skipped because a server could not be had."""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return any(reason in said for reason in reasons)


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One real broker, shared by the whole run."""
    if bootstrap := os.environ.get("SAGAKIT_TEST_BOOTSTRAP"):
        yield ExternalKafka(bootstrap=bootstrap)
        return
    cluster = start_or_skip(KafkaCluster(1, log_directory=tmp_path_factory.mktemp("kafka")), "Kafka", pytestconfig)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def kafka3(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three real brokers, shared by the tests of a module; start again what you kill."""
    cluster = KafkaCluster(3, log_directory=tmp_path_factory.mktemp("kafka3"))
    start_or_skip(cluster, "a Kafka of three brokers", pytestconfig)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def registry(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealRegistry | ExternalRegistry]:
    """A real schema registry, shared by the whole run; its `url` goes to clients."""
    if url := os.environ.get("SAGAKIT_TEST_REGISTRY"):
        yield ExternalRegistry(url)
        return
    server = RealRegistry(log_directory=tmp_path_factory.mktemp("registry"))
    start_or_skip(server, "a schema registry", pytestconfig)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def startable(pytestconfig: pytest.Config) -> None:
    """Java and the jars of Kafka and the registry can be had here: for tests of what starts servers by itself."""

    def find() -> None:
        jars.java()
        jars.kafka_jars()
        jars.apicurio_jar()

    _or_skip(find, "servers of a command's own", pytestconfig)


@pytest.fixture(scope="session")
def embedded_pair() -> Iterator[EmbeddedPair]:
    """The mock broker and the registry of this process, shared by the whole run.

    See `sagakit.testing.embedded` for what they lack. A test separates itself from the others by `topic_prefix`, and by
    the names of its records.
    """
    with EmbeddedPair() as pair:
        yield pair


@pytest.fixture(scope="session")
def embedded_kafka(embedded_pair: EmbeddedPair) -> EmbeddedKafka:
    """The Kafka of `embedded_pair`."""
    return embedded_pair.kafka


@pytest.fixture(scope="session")
def embedded_registry(embedded_pair: EmbeddedPair) -> MemoryRegistry:
    """The registry of `embedded_pair`."""
    return embedded_pair.registry


@pytest.fixture
def start_server(pytestconfig: pytest.Config) -> Iterator[StartServer]:
    """Starts a server of this test's own and stops it at the test's end: `start_server(KafkaCluster(1))`."""
    with contextlib.ExitStack() as running:

        def start(server: Server) -> Server:
            start_or_skip(server, type(server).__name__, pytestconfig)
            running.callback(server.stop)
            return server

        yield start


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """A prefix, unique to this test, for names on shared servers: topics, groups, subjects. It ends with a dot."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")
    return f"{name[:40]}-{uuid.uuid4().hex[:8]}."


def start_or_skip(server: Server, what: str, config: pytest.Config) -> Server:
    """Start `server`, or skip the test where servers cannot be had; `what` names it to people."""
    return _or_skip(server.start, what, config)


def _or_skip(get: Callable[[], Got], what: str, config: pytest.Config) -> Got:
    try:
        return get()
    except ServerUnavailableError as error:
        if os.environ.get("SAGAKIT_REQUIRE_SERVERS"):
            raise
        config.stash[_unavailable][what] = str(error)
        pytest.skip(str(error))
