"""The port to the definitions topic, as those who publish and read definitions need it."""

from typing import Protocol

from sagakit.language.canonical import Bundle
from sagakit.language.publishing import PublishedVersion


class DefinitionsUnavailableError(Exception):
    """The definitions topic cannot be read or written; the message is one line that says what to do."""


class DefinitionStore(Protocol):
    """The definitions topic."""

    def published(self) -> list[PublishedVersion]:
        """Every published version, read to the topic's end.

        Raises:
            DefinitionsUnavailableError: the broker does not answer, or the topic is not there.
        """
        ...

    def publish(self, bundle: Bundle) -> None:
        """Write a version; when this returns, whatever starts afterwards sees it.

        Raises:
            DefinitionsUnavailableError: as `published`, also when a schema is not registered.
        """
        ...
