"""The least rights that each part needs, as plain data and as the commands that grant them."""

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from sagakit.app.provisioning import ServiceTopics
from sagakit.contracts.topics import Topics

_LITERAL: Final = "literal"
_PREFIXED: Final = "prefixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principals:
    """The names that processes connect under; a service's follows its own name."""

    orchestrator: str = "User:sagakit-orchestrator"
    service: str = "User:sagakit-{service}"
    client: str = "User:sagakit-client"
    operator: str = "User:sagakit-operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acl:
    """One right to allow.

    Attributes:
        principal: who gets it.
        role: what the principal is, for people.
        operations: Kafka's names (`Read`, `Write`, `Describe`, `DescribeConfigs`, `Delete`, `Create`).
        resource: `topic`, `group` or `transactional-id`.
        name: the resource's name, or how names begin where `pattern` is `prefixed`.
        why: what it is needed for.
    """

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
        return (
            f"kafka-acls.sh --bootstrap-server {shlex.quote(bootstrap)} --add --allow-principal "
            f"{shlex.quote(self.principal)} {operations} --{self.resource} {shlex.quote(self.name)}{pattern}"
            f"  # {self.why}"
        )

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
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
    """The rights of a namespace: its orchestrator, its services, clients that start sagas, and operators.

    `triggers` are the topics (without the prefix) whose events start sagas, and to which end events go.
    """
    return (
        *_orchestrator(topics, principals.orchestrator, services, sorted(set(triggers))),
        *(acl for service in services for acl in _service(topics, principals.service, service)),
        *_client(topics, principals.client, sorted(set(triggers))),
        *_operator(topics, principals.operator, services, sorted(set(triggers))),
    )


def _orchestrator(
    topics: Topics, principal: str, services: Collection[ServiceTopics], triggers: Collection[str]
) -> Iterator[Acl]:
    def allow(resource: str, name: str, why: str, *operations: str, pattern: str = _LITERAL) -> Acl:
        return Acl(
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


def _operator(
    topics: Topics, principal: str, services: Collection[ServiceTopics], triggers: Collection[str]
) -> Iterator[Acl]:
    def allow(resource: str, name: str, why: str, *operations: str) -> Acl:
        return Acl(
            principal=principal,
            role="people and pipelines that run `sagakit`",
            operations=operations,
            resource=resource,
            name=name,
            why=why,
        )

    yield allow("topic", topics.inbox, "cancels, retries, skips; looks whether a start waits", "Read", "Write")
    yield allow("topic", topics.state, "status, parked", "Read")
    yield allow("topic", topics.backlog, "history", "Read")
    yield allow("topic", topics.definitions, "publishes definitions", "Read", "Write", "DescribeConfigs")
    yield allow("group", topics.orchestrator_group, "looks whether a start waits", "Describe")
    publisher = f"{topics.topic_prefix}{topics.namespace}.publisher"
    yield allow("transactional-id", publisher, "publishes definitions", "Write", "Describe")
    for service in services:
        yield allow("topic", topics.commands(service.name), "sees that it is there", "Describe")
    for trigger in triggers:
        yield allow("topic", topics.service_topic(trigger), "sees where it ends", "Describe")
