"""The client: start sagas, signal and control them, publish domain events. `sagakit.app.connect` makes one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sagakit.client.composer import KEEP_MS, Composed, Composer
from sagakit.contracts.messages import ControlMessage
from sagakit.core.address import Address
from sagakit.core.events import ReplyTo, TraceContext, Verb
from sagakit.core.values import Data, Payload
from sagakit.ports.sending import Placed, Sender


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that is durable: its saga (None for a domain event), its id and where it lies."""

    saga_id: str | None
    message_id: str
    placed: Placed


class Client:
    """Sends messages and waits until they are durable. One instance may be shared by threads.

    Every method raises `RefusedError` if the broker will never take the message, `SendTimeoutError` if it did not
    confirm it in time, `RegistryUnavailableError` if the registry has to be asked and does not answer. For many
    messages at once compose them with `compose` and give them to `send`.
    """

    def __init__(self, composer: Composer, sender: Sender) -> None:
        self.compose = composer
        self._sender = sender

    def saga_id(self, definition: str, key: str | int) -> str:
        """The id of the saga of `definition` for a business key; see `Composer.saga_id`."""
        return self.compose.saga_id(definition, key)

    def payload(self, record: str, data: Data) -> Payload:
        """A record as a payload; see `Composer.payload`."""
        return self.compose.payload(record, data)

    def start(
        self,
        definition: str,
        key: str | int,
        payload: Payload,
        *,
        reply_to: ReplyTo | None = None,
        deadline_ms: int | None = None,
        message_id: str | None = None,
        trace: TraceContext | None = None,
    ) -> Sent:
        """Start a saga; see `Composer.start` for `message_id`."""
        return self._send(
            self.compose.start(
                definition,
                key,
                payload,
                at_ms=_now_ms(),
                reply_to=reply_to,
                deadline_ms=deadline_ms,
                message_id=message_id,
                trace=trace,
            )
        )

    def signal(
        self,
        saga_id: str,
        name: str,
        payload: Payload | None = None,
        *,
        keep_ms: int = KEEP_MS,
        message_id: str | None = None,
        trace: TraceContext | None = None,
    ) -> Sent:
        """Signal a saga, started or not; see `Composer.signal`."""
        return self._send(
            self.compose.signal(
                saga_id, name, payload, at_ms=_now_ms(), keep_ms=keep_ms, message_id=message_id, trace=trace
            )
        )

    def cancel(
        self, saga_id: str, *, actor: str, reason: str, ticket: str | None = None, step: Address | None = None
    ) -> Sent:
        """Ask a saga to undo what it did; after the pivot it refuses, and records that.

        `step` names a parked pivot of which the actor has found out that it did not happen.
        """
        return self._control(
            ControlMessage(saga_id=saga_id, verb=Verb.CANCEL, actor=actor, reason=reason, ticket=ticket, address=step)
        )

    def retry(
        self, saga_id: str, *, actor: str, reason: str, ticket: str | None = None, step: Address | None = None
    ) -> Sent:
        """Let a parked saga try again: at `step`, or at everything that is parked."""
        return self._control(
            ControlMessage(saga_id=saga_id, verb=Verb.RETRY, actor=actor, reason=reason, ticket=ticket, address=step)
        )

    def skip(
        self,
        saga_id: str,
        *,
        actor: str,
        reason: str,
        ticket: str | None = None,
        step: Address | None = None,
        reply: Payload | None = None,
    ) -> Sent:
        """Let a saga go on as if `step` had succeeded (or its compensation had undone it), with `reply` for its reply.

        Without `step` it is the one step that waits; or, of a saga that waits at its end because its event cannot be
        sent, the end, with `reply` in place of that event, or none.
        """
        return self._control(
            ControlMessage(
                saga_id=saga_id,
                verb=Verb.SKIP,
                actor=actor,
                reason=reason,
                ticket=ticket,
                address=step,
                payload=reply,
            )
        )

    def publish_event(
        self,
        topic: str,
        key: str,
        record: str,
        data: Data,
        *,
        event_id: str | None = None,
        trace: TraceContext | None = None,
    ) -> Sent:
        """Publish a domain event to `topic` (without the prefix); see `Composer.event`."""
        payload = self.compose.payload(record, data)
        return self._send(
            self.compose.event(topic, key, record, payload, at_ms=_now_ms(), event_id=event_id, trace=trace)
        )

    def send(self, messages: Sequence[Composed]) -> Sequence[Sent]:
        """Send composed messages together and wait until all are durable."""
        placed = self._sender.send([message.record for message in messages])
        return [
            Sent(saga_id=message.saga_id, message_id=message.message_id, placed=where)
            for message, where in zip(messages, placed, strict=True)
        ]

    def close(self) -> None:
        """Release the connections."""
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _control(self, message: ControlMessage) -> Sent:
        return self._send(self.compose.control(message, at_ms=_now_ms()))

    def _send(self, message: Composed) -> Sent:
        return self.send([message])[0]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
