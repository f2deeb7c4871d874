"""The least rights that each part needs, as plain data and as the commands that grant them."""

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sagakit.app.provisioning import ServiceTopics
from sagakit.contracts.topics import Topics

_LITERAL: Final = "literal"
_PREFIXED: Final = "prefixed"
_CLUSTER: Final = "kafka-cluster"
"""The one name that the resource `cluster` has."""


class Part(Enum):
    """Who needs rights."""

    SETUP = "setup"
    ORCHESTRATOR = "orchestrator"
    SERVICE = "service"
    CLIENT = "client"
    OPERATOR = "operator"
    DOCTOR = "doctor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principals:
    """The names that processes connect under; a service's follows its own name."""

    orchestrator: str = "User:sagakit-orchestrator"
    service: str = "User:sagakit-{service}"
    client: str = "User:sagakit-client"
    operator: str = "User:sagakit-operator"
    setup: str = "User:sagakit-setup"
    doctor: str = "User:sagakit-doctor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acl:
    """One right to allow.

    Attributes:
        part: as what the principal acts.
        principal: who gets it.
        role: what the principal is, for people.
        operations: Kafka's names (`Read`, `Write`, `Describe`, `DescribeConfigs`, `Delete`, `Create`).
        resource: `topic`, `group`, `transactional-id` or `cluster`.
        name: the resource's name, or how names begin where `pattern` is `prefixed`.
        why: what it is needed for.
    """

    part: Part
    principal: str
    role: str
    operations: tuple[str, ...]
    resource: str
    name: str
    pattern: str = _LITERAL
    why: str

    def command(self, bootstrap: str) -> str:
        """The command of Kafka's own tool that grants it."""
        operations = " ".join(f"--operation {operation}" for operation in self.operations)
        pattern = f" --resource-pattern-type {_PREFIXED}" if self.pattern == _PREFIXED else ""
        name = "" if self.resource == "cluster" else f" {shlex.quote(self.name)}"
        return (
            f"kafka-acls.sh --bootstrap-server {shlex.quote(bootstrap)} --add --allow-principal "
            f"{shlex.quote(self.principal)} {operations} --{self.resource}{name}{pattern}"
            f"  # {self.why}"
        )

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "for": self.part.value,
            "principal": self.principal,
            "role": self.role,
            "operations": list(self.operations),
            "resource": self.resource,
            "name": self.name,
            "pattern": self.pattern,
            "why": self.why,
        }


def acls(
    topics: Topics,
    principals: Principals,
    *,
    services: Collection[ServiceTopics] = (),
    triggers: Collection[str] = (),
) -> tuple[Acl, ...]:
    """The rights around a namespace, one part after the other, as `Part` names them.

    `triggers` are the topics (without the prefix) whose events start sagas, and to which end events go.
    """
    return (
        *_setup(topics, principals.setup, services, sorted(set(triggers))),
        *_orchestrator(topics, principals.orchestrator, services, sorted(set(triggers))),
        *(acl for service in services for acl in _service(topics, principals.service, service)),
        *_client(topics, principals.client, sorted(set(triggers))),
        *_operator(topics, principals.operator),
        *_doctor(topics, principals.doctor),
    )


def _orchestrator(
    topics: Topics, principal: str, services: Collection[ServiceTopics], triggers: Collection[str]
) -> Iterator[Acl]:
    def allow(resource: str, name: str, why: str, *operations: str, pattern: str = _LITERAL) -> Acl:
        return Acl(
            part=Part.ORCHESTRATOR,
            principal=principal,
            role="the orchestrator's instances",
            operations=operations,
            resource=resource,
            name=name,
            pattern=pattern,
            why=why,
        )

    group = topics.orchestrator_group
    yield allow("group", group, "consumes as a group", "Read")
    yield allow(
        "transactional-id", f"{group}.", "commits, and fences dead instances", "Write", "Describe", pattern=_PREFIXED
    )
    yield allow(
        "topic", topics.inbox, "consumes and purges, re-keys triggers", "Read", "Write", "Delete", "DescribeConfigs"
    )
    yield allow("topic", topics.state, "writes and restores", "Read", "Write", "DescribeConfigs")
    yield allow("topic", topics.backlog, "writes transitions", "Write", "DescribeConfigs")
    yield allow("topic", topics.definitions, "reads definitions", "Read", "DescribeConfigs")
    yield allow("topic", topics.dead_letters, "writes what it can never read", "Write", "DescribeConfigs")
    yield allow("topic", topics.results, "tells those who asked", "Write", "DescribeConfigs")
    for service in services:
        yield allow("topic", topics.commands(service.name), f"commands {service.name}", "Write")
    for trigger in triggers:
        yield allow("topic", topics.service_topic(trigger), "starts sagas; end events", "Read", "Write")


def _service(topics: Topics, template: str, service: ServiceTopics) -> Iterator[Acl]:
    name = service.name

    def allow(resource: str, resource_name: str, why: str, *operations: str) -> Acl:
        return Acl(
            part=Part.SERVICE,
            principal=template.format(service=name),
            role=f"the instances of the service {name}",
            operations=operations,
            resource=resource,
            name=resource_name,
            why=why,
        )

    commands = topics.commands(name)
    yield allow("group", topics.service_group(name), "consumes as a group", "Read")
    yield allow("topic", commands, "handles and purges commands", "Read", "Delete", "DescribeConfigs")
    yield allow("topic", f"{commands}.dlq", "writes what it can never read", "Write", "DescribeConfigs")
    yield allow("topic", topics.inbox, "replies", "Write")
    yield allow("topic", topics.events(name), "publishes its events", "Write", "DescribeConfigs")
    for topic in service.event_topics:
        full = topics.service_topic(topic)
        yield allow("topic", full, "handles events", "Read", "DescribeConfigs")
        yield allow("topic", f"{full}.{name}.dlq", "writes events that it gave up", "Write", "DescribeConfigs")


def _client(topics: Topics, principal: str, triggers: Collection[str]) -> Iterator[Acl]:
    def allow(name: str, why: str) -> Acl:
        return Acl(
            part=Part.CLIENT,
            principal=principal,
            role="clients that start and signal sagas",
            operations=("Write",),
            resource="topic",
            name=name,
            why=why,
        )

    yield allow(topics.inbox, "starts and signals")
    for trigger in triggers:
        yield allow(topics.service_topic(trigger), "publishes events that start sagas")


def _operator(topics: Topics, principal: str) -> Iterator[Acl]:
    def allow(resource: str, name: str, why: str, *operations: str) -> Acl:
        return Acl(
            part=Part.OPERATOR,
            principal=principal,
            role="people who look sagas up, cancel, retry and skip them, and start them by hand",
            operations=operations,
            resource=resource,
            name=name,
            why=why,
        )

    yield allow("topic", topics.inbox, "starts, cancels, retries, skips; looks whether a start waits", "Read", "Write")
    yield allow("topic", topics.state, "status, parked", "Read")
    yield allow("topic", topics.backlog, "history", "Read")
    yield allow("topic", topics.definitions, "reads definitions", "Read")
    yield allow("group", topics.orchestrator_group, "looks whether a start waits", "Describe")


def _setup(
    topics: Topics, principal: str, services: Collection[ServiceTopics], triggers: Collection[str]
) -> Iterator[Acl]:
    def allow(resource: str, name: str, why: str, *operations: str, pattern: str = _LITERAL) -> Acl:
        return Acl(
            part=Part.SETUP,
            principal=principal,
            role="the pipeline that runs `sagakit topics apply` and `sagakit definitions publish`",
            operations=operations,
            resource=resource,
            name=name,
            pattern=pattern,
            why=why,
        )

    making = ("Create", "Describe", "DescribeConfigs")
    names = [topics.service_topic(trigger) for trigger in triggers]
    for service in services:
        commands = topics.commands(service.name)
        names += [commands, f"{commands}.dlq", topics.events(service.name)]
        for topic in map(topics.service_topic, service.event_topics):
            names += [topic, f"{topic}.{service.name}.dlq"]
    sagas = topics.inbox.removesuffix("inbox")
    yield allow("topic", sagas, "makes and checks the namespace's topics", *making, pattern=_PREFIXED)
    for name in dict.fromkeys(names):
        yield allow("topic", name, "makes and checks it, sees where it ends", *making)
    yield allow("topic", topics.definitions, "writes the namespace record and definitions", "Read", "Write")
    yield allow("group", topics.orchestrator_group, "reads definitions under its name", "Describe")
    publisher = f"{topics.topic_prefix}{topics.namespace}.publisher"
    yield allow("transactional-id", publisher, "publishes all or nothing", "Write", "Describe")


def _doctor(topics: Topics, principal: str) -> Iterator[Acl]:
    def allow(resource: str, name: str, why: str, *operations: str, pattern: str = _PREFIXED) -> Acl:
        return Acl(
            part=Part.DOCTOR,
            principal=principal,
            role="who runs `sagakit doctor`",
            operations=operations,
            resource=resource,
            name=name,
            pattern=pattern,
            why=why,
        )

    own = f"{topics.topic_prefix}sagakit-doctor-"
    everything = ("Create", "Delete", "Read", "Write", "DescribeConfigs")
    yield allow("topic", own, "tries out promises on topics of its own", *everything)
    yield allow("group", own, "and with groups of its own", "Read", "Delete")
    yield allow("transactional-id", own, "and with transactions of its own", "Write", "Describe")
    yield allow("cluster", _CLUSTER, "reads the brokers' settings", "DescribeConfigs", pattern=_LITERAL)
