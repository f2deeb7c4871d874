"""Which error means which exit code, and its message on one line."""

from typing import Final

from sagakit.adapters.client_properties import ClientPropertyError
from sagakit.adapters.kafka_reader import NoTopicError
from sagakit.adapters.topics import TopicsDifferError, TopicsForbiddenError, TopicsUnavailableError
from sagakit.app.connect import NotAdmittedError
from sagakit.app.provisioning import NamespaceDiffersError
from sagakit.app.published import PublishingRefusedError
from sagakit.app.settings import SettingsError
from sagakit.app.upgrading import UpgradeRefusedError
from sagakit.cli import exits
from sagakit.contracts.errors import SchemaError, UndecodableError, UnencodableError
from sagakit.core.address import InvalidAddressError
from sagakit.core.ids import InvalidKeyError
from sagakit.ports.log import LogUnavailableError
from sagakit.ports.registry import IncompatibleSchemaError, RegistryUnavailableError, UnknownSchemaError
from sagakit.ports.sending import RefusedError, SendTimeoutError
from sagakit.testing.errors import ServerError

# The first that fits counts: a kind of error stands before the wider one that it belongs to.
_CODES: Final[dict[type[Exception], int]] = {
    UnknownSchemaError: exits.NO,
    SettingsError: exits.WRONG,
    ClientPropertyError: exits.WRONG,
    InvalidKeyError: exits.WRONG,
    InvalidAddressError: exits.WRONG,
    SchemaError: exits.WRONG,
    UnencodableError: exits.WRONG,
    NotAdmittedError: exits.REFUSED,
    NoTopicError: exits.REFUSED,
    TopicsForbiddenError: exits.REFUSED,
    RegistryUnavailableError: exits.UNREACHABLE,
    TopicsUnavailableError: exits.UNREACHABLE,
    SendTimeoutError: exits.UNREACHABLE,
    LogUnavailableError: exits.UNREACHABLE,
    RefusedError: exits.REFUSED,
    IncompatibleSchemaError: exits.REFUSED,
    TopicsDifferError: exits.REFUSED,
    NamespaceDiffersError: exits.REFUSED,
    PublishingRefusedError: exits.REFUSED,
    UpgradeRefusedError: exits.REFUSED,
    UndecodableError: exits.REFUSED,
    ServerError: exits.REFUSED,
}


def code_of(error: Exception) -> int | None:
    """The exit code that an error means; None for one that no command expects, which is a bug."""
    if isinstance(error, exits.CommandError):
        return error.code
    if isinstance(error, LogUnavailableError) and error.fatal:
        return exits.REFUSED
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)


def one_line(error: Exception) -> str:
    """An error's message on one line, whatever it quotes."""
    return " ".join(str(error).split()) or type(error).__name__
