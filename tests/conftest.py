"""What all tests share: the servers, how much Hypothesis searches, and what is said at the end."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = ["sagakit.testing.fixtures"]

# The tests start hundreds of processes. Each of Python would compile again all that it imports, were it forbidden to
# keep what it has compiled; and a Java that lives for minutes never earns back what its optimizing compiler costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")

# A console keeps the width that it finds when it is made; pytest-xdist gives its workers the terminal's.
os.environ.pop("COLUMNS", None)

# A run that was started in the background ignores Ctrl-C, and so would all that it starts; some tests send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `ci`: the same examples at each run, few enough to belong to every run. `long`: a search, with new examples each time;
# its failures print the blob that reproduces them. A machine that is busy is not a failure, so no example has a
# deadline.
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", deadline=None, max_examples=10_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("SAGAKIT_HYPOTHESIS", "ci"))

_TOLD: Final = "told"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several processes the files with slow tests go first: begun last, one of them would be waited for alone."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that runs within a test sets up logging for the whole process: the next test is to find it as it was.

    Nor may loggers keep it, or the next test could not capture what they log.
    """
    before, configure = structlog.get_config(), structlog.configure
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]

    def configure_for_now(**given: Any) -> None:
        configure(**{**given, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", configure_for_now)
    yield
    configure(**before)
    root.setLevel(level)
    root.handlers[:] = handlers
    logging.captureWarnings(capture=False)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say something at the end of the run; as a property of the test it also comes out of a worker process."""
    return lambda line: record_property(_TOLD, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests have to tell: how many worlds ran, how fast, and which defects were found by what."""
    reports = [one for outcome in ("passed", "failed") for one in terminalreporter.stats.get(outcome, [])]
    for name, line in (one for report in reports for one in report.user_properties):
        if name == _TOLD:
            terminalreporter.write_line(str(line))
