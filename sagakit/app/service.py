"""A service process, wired: the only place where handlers meet Kafka and the registry."""

import importlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from sagakit.adapters.kafka_messages import KafkaMessages
from sagakit.adapters.topics import WantedTopic
from sagakit.app.connect import client_properties, connect_registry
from sagakit.app.health import Report
from sagakit.app.provisioning import ServiceTopics, wanted_topics
from sagakit.app.purging import purging
from sagakit.app.running import EXIT_STUCK, Stop
from sagakit.app.settings import Settings, SettingsError
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PlainPayloadCodec
from sagakit.participants import (
    Formats,
    HandlerError,
    HandlersStuckError,
    RuntimeSettings,
    Service,
    ServiceExchange,
    ServiceRuntime,
)
from sagakit.ports.registry import SchemaRegistry

_log = structlog.get_logger("sagakit.app")


def load_service(path: str) -> Service:
    """The service that `module:attribute` names; modules of the working directory are found.

    Raises:
        SettingsError: there is none, or its handlers are wrong.
    """
    module_name, separator, attribute = path.partition(":")
    if not separator or not module_name or not attribute:
        raise SettingsError(f"{path!r} names no service: write module:attribute, such as services.payments.app:app")
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:
        sys.path.insert(0, working_directory)
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise SettingsError(f"{path}: {error}; run it where the module can be imported, or set PYTHONPATH") from error
    except AttributeError as error:
        raise SettingsError(f"{path}: the module has no {attribute!r}") from error
    except HandlerError as error:
        raise SettingsError(f"{path}: {error}") from error
    if not isinstance(found, Service):
        raise SettingsError(f"{path} is a {type(found).__name__}, not a Service")
    return found


def topics_of(settings: Settings, service: Service) -> tuple[WantedTopic, ...]:
    """The topics that a service process uses, and therefore checks at its start."""
    own = ServiceTopics(name=service.name, event_topics=service.event_topics)
    used: set[str] = set()
    if service.commands:
        used |= _full(settings, (f"{service.name}.commands", f"{service.name}.commands.dlq"))
    for topic in service.event_topics:
        used |= _full(settings, (topic, f"{topic}.{service.name}.dlq"))
    return tuple(topic for topic in wanted_topics(settings, [own]) if topic.name in used)


def run_service(
    settings: Settings, service: Service, stop: Stop, started: Callable[[Callable[[], Report]], None], *, threads: int
) -> None:
    """Run one instance until `stop`; `started` is given, once, what tells its health.

    If a handler does not end in time, the process ends here and at once: returning would wait for its thread, while its
    partitions become another's.

    Raises:
        MessagesUnavailableError: fatal, the Kafka client can go on no more.
        UnknownSchemaError: the schema of a reply is not registered.
    """
    commands = [settings.topics.commands(service.name)] if service.commands else []
    with connect_registry(settings) as registry:
        runtime = _runtime(settings, service, registry, RuntimeSettings(threads=threads))
        started(lambda: _report(service, runtime))
        stop.then(runtime.stop)
        with purging(client_properties(settings), settings.topics.service_group(service.name), commands):
            runtime.run()


def _end_at_once(stuck: HandlersStuckError) -> None:
    _log.critical("the process ends at once", reason=str(stuck))
    logging.shutdown()
    os._exit(EXIT_STUCK)


def _runtime(
    settings: Settings, service: Service, registry: SchemaRegistry, runtime_settings: RuntimeSettings
) -> ServiceRuntime:
    avro = AvroCodec(registry)
    formats = Formats(
        registry=registry,
        avro=avro,
        own=OwnRecords(registry),
        payloads=PlainPayloadCodec(avro),
        topics=settings.topics,
    )
    exchange = ServiceExchange(service, formats, clock_ms=_wall_clock_ms, clock=time.monotonic)
    properties = client_properties(settings)
    return ServiceRuntime(
        service,
        answering=exchange,
        connect=lambda listener: KafkaMessages(
            properties=properties,
            bootstrap_servers=settings.bootstrap,
            group=settings.topics.service_group(service.name),
            topics=exchange.topics,
            listener=listener,
            client_id=f"{service.name}.{settings.instance}",
        ),
        settings=runtime_settings,
        on_stuck=_end_at_once,
    )


def _report(service: Service, runtime: ServiceRuntime) -> Report:
    """Ready: there are partitions, none of them stands still, and Kafka refuses nothing."""
    standing = [f"{one.topic}[{one.partition}]" for one in sorted(runtime.standing_still)]
    return Report(
        live=True,
        ready=bool(runtime.assigned) and not standing and runtime.unavailable is None,
        details={
            "service": service.name,
            "assigned": len(runtime.assigned),
            "standing_still": standing,
            "unavailable": runtime.unavailable,
        },
    )


def _full(settings: Settings, names: Iterable[str]) -> set[str]:
    return {settings.topics.service_topic(name) for name in names}


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
