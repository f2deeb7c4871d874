"""Log lines for people and for machines, one pipeline for structlog, the standard library and librdkafka.

The names under which a line says what it is about, wherever it comes from: `saga_id`, `definition`, `version`, `step`,
`direction`, `attempt`, `command_id`, `business_key`, `trace_id`, `service`, `topic`, `partition`, `offset`. Whoever
knows one binds it, to a logger or, for all that is logged meanwhile, by `structlog.contextvars.bound_contextvars`.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor

from sagakit.telemetry.tracing import current_trace_id

SECRET_NAME: Final = re.compile(
    r"password|passwd|secret|private|\.key$|key\.pem|token|credential|user\.info|authorization", re.IGNORECASE
)
"""Names of settings and of log fields whose values are never shown."""

MASK: Final = "********"

_CREDENTIALS_IN_URL: Final = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_ASSIGNED_SECRET: Final = re.compile(r"((?:password|secret|token)[\w.]*\s*[=:]\s*)([^\s,;\"']+)", re.IGNORECASE)

# Each request, each start of a server: libraries that say at INFO more than anyone wants to read.
_CHATTY: Final = ("httpx", "httpx2", "httpcore", "httpcore2", "uvicorn", "asyncio")


def configure_logging(*, style: str, level: str, stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (default: standard error).

    Args:
        style: `console` (columns, colours on a terminal) or `json` (one object a line).
        level: the least level shown: `debug`, `info`, `warning` or `error`.
        stream: where to.
    """
    out = sys.stderr if stream is None else stream
    least = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_id,
        structlog.processors.StackInfoRenderer(),
        mask_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(style, out)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(least if least == logging.DEBUG else max(least, logging.WARNING))
    logging.captureWarnings(capture=True)


def mask_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace what must not be read in a log: values under secret names at any depth, and credentials inside texts."""
    return {name: _masked(name, value) for name, value in event.items()}


def _masked(name: str, value: Any) -> Any:
    if name.startswith("_"):  # structlog's own: the log record and where it came from
        return value
    if SECRET_NAME.search(name) and value is not None:
        return MASK
    if isinstance(value, str):
        return _ASSIGNED_SECRET.sub(rf"\g<1>{MASK}", _CREDENTIALS_IN_URL.sub(MASK, value))
    if isinstance(value, Mapping):
        return {inner: _masked(str(inner), part) for inner, part in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", part) for part in value]
    return value


def _rendering(style: str, out: TextIO) -> list[Processor]:
    # Tracebacks as plain text in both styles: the prettier ones print local variables, and so secrets and payloads.
    if style == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [
        structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]


def _add_trace_id(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The trace of the current span, unless the line is about another one."""
    if "trace_id" not in event and (trace_id := current_trace_id()) is not None:
        event["trace_id"] = trace_id
    return event
