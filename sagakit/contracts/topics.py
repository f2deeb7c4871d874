"""The names of all topics, in one place."""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, kw_only=True)
class Topics:
    """Topic names of one namespace.

    Saga topics carry the namespace; a service's topics do not, so that a new namespace can use the same services while
    the old one drains. `topic_prefix` stands before every name.
    """

    namespace: str = "default"
    topic_prefix: str = ""

    def _saga(self, name: str) -> str:
        return f"{self.topic_prefix}{self.namespace}.saga.{name}"

    @cached_property
    def inbox(self) -> str:
        """Everything that the orchestrator consumes: starts, replies, signals, controls."""
        return self._saga("inbox")

    @cached_property
    def backlog(self) -> str:
        """Every transition of every saga."""
        return self._saga("backlog")

    @cached_property
    def state(self) -> str:
        """Snapshots, markers and early signals."""
        return self._saga("state")

    @cached_property
    def results(self) -> str:
        """How sagas ended, for those who asked for it."""
        return self._saga("results")

    @cached_property
    def definitions(self) -> str:
        """Published definitions and the namespace record."""
        return self._saga("definitions")

    @cached_property
    def dead_letters(self) -> str:
        """Records that the orchestrator can never read, raw."""
        return self._saga("dlq")

    @cached_property
    def orchestrator_group(self) -> str:
        """The consumer group of the orchestrator's instances."""
        return f"{self.topic_prefix}{self.namespace}.orchestrator"

    def commands(self, service: str) -> str:
        """The commands of a participant."""
        return self.service_topic(f"{service}.commands")

    def events(self, service: str) -> str:
        """The domain events of a service."""
        return self.service_topic(f"{service}.events")

    def service_topic(self, name: str) -> str:
        """The full name of a topic that definitions and services call `name`."""
        return f"{self.topic_prefix}{name}"

    def service_group(self, service: str) -> str:
        """The consumer group of a service's instances."""
        return f"{self.topic_prefix}service.{service}"
