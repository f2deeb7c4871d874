"""Log lines: one pipeline, names that machines find, and no secret in any of them."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sagakit.telemetry.logging import MASK, configure_logging

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the logging of the test run as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def logged(style: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(style=style, level=level, stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_carries_what_was_bound_to_the_logger_and_to_the_context() -> None:
    stream = logged("json")
    with structlog.contextvars.bound_contextvars(saga_id="s-1", business_key="o-1"):
        structlog.get_logger("shop").bind(step="reserve", attempt=2).info("reserved", units=3)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "reserved",
        "level": "info",
        "logger": "shop",
        "saga_id": "s-1",
        "business_key": "o-1",
        "step": "reserve",
        "attempt": 2,
        "units": 3,
    }


def test_the_standard_library_speaks_through_the_same_pipeline() -> None:
    stream = logged("json")
    logging.getLogger("sagakit.adapters.kafka_sender").warning("broker %s is away", 1)
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == (
        "broker 1 is away",
        "warning",
        "sagakit.adapters.kafka_sender",
    )


def test_lines_below_the_level_are_not_written() -> None:
    stream = logged("json", "error")
    structlog.get_logger("shop").warning("not this")
    logging.getLogger("shop").info("nor this")
    structlog.get_logger("shop").error("but this")
    assert [line["event"] for line in lines(stream)] == ["but this"]


@pytest.mark.parametrize("style", ["json", "console"])
def test_secrets_are_masked_wherever_they_stand(style: str) -> None:
    stream = logged(style)
    structlog.get_logger("shop").info(
        f"connecting to http://user:{SECRET}@registry:8081 with sasl.password={SECRET}",
        properties={"sasl.password": SECRET, "inner": [{"ssl.key.pem": SECRET}]},
        card_token=SECRET,
    )
    logging.getLogger("shop").info("token: %s", SECRET)
    assert SECRET not in stream.getvalue()
    assert MASK in stream.getvalue()


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_shows_no_local_variables(style: str) -> None:
    stream = logged(style)

    def fail() -> None:
        number = f"4111-{SECRET}"
        raise ValueError(len(number))

    try:
        fail()
    except ValueError:
        structlog.get_logger("shop").exception("it failed")
    assert "ValueError: 12" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_libraries_that_log_each_request_are_quiet_unless_one_debugs() -> None:
    stream = logged("json", "info")
    logging.getLogger("httpx").info("HTTP Request: GET /subjects")
    assert stream.getvalue() == ""
    stream = logged("json", "debug")
    logging.getLogger("httpx").info("HTTP Request: GET /subjects")
    assert [line["logger"] for line in lines(stream)] == ["httpx"]
