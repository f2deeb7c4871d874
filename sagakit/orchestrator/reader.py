"""Bytes from the log to what the core understands. Whatever can never be read raises `UndecodableError`."""

from sagakit.contracts.denials import Denials
from sagakit.contracts.errors import UndecodableError, UnknownSchemaIdError
from sagakit.contracts.messages import DomainEvent, decode_event, decode_inbox, saga_id_of
from sagakit.contracts.own import OwnRecords
from sagakit.contracts.payload import PayloadCodec
from sagakit.contracts.snapshots import decode_state
from sagakit.core import ids
from sagakit.core.events import Control, Reply, Signal, Start
from sagakit.core.state import State
from sagakit.orchestrator.blocked import PartitionBlockedError
from sagakit.ports.log import Record
from sagakit.ports.registry import RegistryUnavailableError


class Reader:
    """Reads inbox records, trigger records and states."""

    def __init__(self, namespace: str, own: OwnRecords, payloads: PayloadCodec) -> None:
        self._namespace = namespace
        self._own = own
        self._payloads = payloads
        self._denials = Denials()

    def read(self, record: Record, now_ms: int) -> tuple[str, Start | Reply | Signal | Control]:
        """The saga id and the event of an inbox record. A start's saga id is derived, whatever its key says.

        Raises:
            UndecodableError: it can never be read.
            PartitionBlockedError: the registry has to be asked (again) and does not answer, or not for good yet.
        """
        try:
            event = decode_inbox(record, self._own, self._payloads)
        except RegistryUnavailableError as error:
            raise PartitionBlockedError(f"the registry does not answer: {error}", transient=True) from error
        except UnknownSchemaIdError as denied:
            raise self._judged(denied, now_ms) from denied
        if isinstance(event, Start):
            return ids.saga_id(self._namespace, event.definition, event.key), event
        return _saga_id(record), event

    def trigger(self, record: Record, now_ms: int) -> DomainEvent:
        """The domain event of a record of a trigger topic; errors as `read`."""
        try:
            return decode_event(record, self._payloads)
        except RegistryUnavailableError as error:
            raise PartitionBlockedError(f"the registry does not answer: {error}", transient=True) from error
        except UnknownSchemaIdError as denied:
            raise self._judged(denied, now_ms) from denied

    def _judged(self, denied: UnknownSchemaIdError, now_ms: int) -> Exception:
        """What a denial comes to: for a moment the partition waits, and others go on meanwhile."""
        if self._denials.is_final(denied.schema_id, now_ms):
            return UndecodableError(denied.reason)
        return PartitionBlockedError(
            f"asking again, since it may only not know it yet: {denied.reason}", transient=True
        )

    def state(self, key: bytes, value: bytes) -> State:
        """The state that the state topic holds under a key.

        Raises:
            PartitionBlockedError: it cannot be read; deciding without it would lose a saga.
        """
        try:
            return decode_state(value, self._own, self._payloads)
        except UndecodableError as undecodable:
            raise PartitionBlockedError(
                f"the state {key!r} cannot be read: {undecodable.reason}; deploy the release that wrote it",
                transient=False,
            ) from undecodable
        except RegistryUnavailableError as unavailable:
            raise PartitionBlockedError(f"the registry does not answer: {unavailable}", transient=True) from unavailable


def _saga_id(record: Record) -> str:
    text = saga_id_of(record)
    if not ids.is_saga_id(text):
        raise UndecodableError(f"the record's key {text[:80]!r} is no saga id (a lower-case UUID)")
    return text
