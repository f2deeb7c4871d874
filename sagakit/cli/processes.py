"""`sagakit orchestrator` and `sagakit service`: the processes that run until they are told to stop."""

from collections.abc import Callable
from typing import Annotated

import structlog
import typer

from sagakit.adapters.topics import Difference
from sagakit.app.health import Report, health_endpoint, orchestrator_report
from sagakit.app.orchestrator import run_orchestrator
from sagakit.app.provisioning import require_namespace, require_own_schemas, require_topics, wanted_topics
from sagakit.app.running import run_with_servers, stopped_by_signals
from sagakit.app.service import load_service, run_service, topics_of
from sagakit.app.settings import Settings
from sagakit.cli.context import options_of, settings_of
from sagakit.telemetry.logging import configure_logging

_log = structlog.get_logger("sagakit.cli")

Instance = Annotated[
    str | None,
    typer.Option(help="This instance's name: unique in its group, the same after a restart [default: host name]."),
]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the health endpoint; 0 takes a free one.")]


def orchestrator(context: typer.Context, instance: Instance = None, health_port: Port = None) -> None:
    """Run an instance of the orchestrator until SIGTERM or Ctrl-C.

    Run as many as you like with one namespace: the inbox's partitions are shared among them. It waits for Kafka and the
    registry while they are away, and refuses to run (exit code 4) if topics are missing or not as they must be.
    """
    settings = _settings(context, instance, health_port)
    health = _Health()
    with stopped_by_signals() as stop, health_endpoint(settings, health):

        def run() -> None:
            _log.info("the orchestrator starts", namespace=settings.namespace, instance=settings.instance)
            run_orchestrator(settings, stop, lambda running: health.become(lambda: orchestrator_report(running)))

        run_with_servers(settings, stop, lambda: _namespace(settings), run)
    _log.info("the orchestrator has stopped")


def service(
    context: typer.Context,
    app: Annotated[str, typer.Argument(help="The service.", metavar="MODULE:APP")],
    instance: Instance = None,
    health_port: Port = None,
    threads: Annotated[int, typer.Option(min=1, help="How many sync handlers run at once.")] = 8,
) -> None:
    """Run an instance of a service until SIGTERM or Ctrl-C: `sagakit service services.payments.app:app`.

    Run as many as you like: the service's partitions are shared among them. Handlers that run when it is stopped are
    finished, what waits is left to the others.
    """
    settings = _settings(context, instance, health_port)
    loaded = load_service(app)
    health = _Health()
    with stopped_by_signals() as stop, health_endpoint(settings, health):
        topics = topics_of(settings, loaded)

        def run() -> None:
            _log.info("the service starts", service=loaded.name, instance=settings.instance)
            run_service(settings, loaded, stop, health.become, threads=threads)

        run_with_servers(settings, stop, lambda: require_topics(settings, topics), run)
    _log.info("the service has stopped", service=loaded.name)


def _namespace(settings: Settings) -> tuple[Difference, ...]:
    differences = require_topics(settings, wanted_topics(settings))
    require_namespace(settings)
    require_own_schemas(settings)
    return differences


class _Health:
    """What the endpoint tells: alive and not ready, until there is something that knows better."""

    def __init__(self) -> None:
        self._report: Callable[[], Report] = lambda: Report(
            live=True, ready=False, details={"waiting": "for Kafka, the registry or the topics"}
        )

    def become(self, report: Callable[[], Report]) -> None:
        self._report = report

    def __call__(self) -> Report:
        return self._report()


def _settings(context: typer.Context, instance: str | None, health_port: int | None) -> Settings:
    settings = settings_of(options_of(context), "bootstrap", "registry_url", instance=instance, health_port=health_port)
    configure_logging(style=settings.log_format, level=settings.log_level)
    return settings
