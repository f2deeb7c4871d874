"""The health endpoint: `/live` (the process does its work) and `/ready` (it does all of it), as JSON."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sagakit.app.settings import Settings
from sagakit.orchestrator.loop import Orchestrator

_log = structlog.get_logger("sagakit.health")

_STOP_S: Final = 5.0

_STALLED_MS: Final = 60_000
"""A loop that has not finished a cycle for so long is taken for dead; an idle one cycles four times a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a process is. `details` is what an operator looks at next; it goes out as JSON."""

    live: bool
    ready: bool
    details: Mapping[str, Any] = field(default_factory=dict)


def orchestrator_report(orchestrator: Orchestrator) -> Report:
    """How an orchestrator is: alive while its loop turns, ready when it decides on everything that it owns."""
    health = orchestrator.health()
    idle_ms = time.time_ns() // 1_000_000 - health.last_cycle_ms
    return Report(
        live=idle_ms < _STALLED_MS,
        ready=health.ready,
        details={
            "owned": health.owned,
            "restoring": health.restoring,
            "blocked": health.blocked,
            "unavailable": health.unavailable,
            "clock_skew_ms": health.clock_skew_ms,
            "last_cycle_ms_ago": idle_ms,
        },
    )


@contextmanager
def health_endpoint(settings: Settings, report: Callable[[], Report]) -> Iterator[str | None]:
    """Serve `report` in a thread of its own while the block runs; gives the address, or None if none is wanted.

    Raises:
        OSError: the port cannot be bound.
    """
    if settings.health_port is None:
        yield None
        return
    listening = socket.create_server((settings.health_host, settings.health_port))
    address = f"http://{settings.health_host}:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(_app(report), log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],), name="health", daemon=True)
    thread.start()
    _log.info("health endpoint", live=f"{address}/live", ready=f"{address}/ready")
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(_STOP_S)
        listening.close()


def _app(report: Callable[[], Report]) -> Starlette:
    def live(_: Request) -> JSONResponse:
        now = report()
        return JSONResponse({"live": now.live, **now.details}, 200 if now.live else 503)

    def ready(_: Request) -> JSONResponse:
        now = report()
        return JSONResponse({"ready": now.ready, **now.details}, 200 if now.ready else 503)

    return Starlette(routes=[Route("/live", live), Route("/ready", ready)])
