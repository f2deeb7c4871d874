"""What is left of an event that is too large to be recorded: that it came, from where, and of what kind.

Everything in a message may be large, not only its payload: a name, an id, a reason. What is left must always fit, or
the record could neither be taken in nor be passed over.
"""

from dataclasses import fields, replace
from typing import Any, Final

from sagakit.core.address import Address
from sagakit.core.events import Cause, Event, ReplyTo, TraceContext
from sagakit.core.values import Opened

TEXT_CHARS: Final = 300
"""How much of a text is kept."""


def short(text: str) -> str:
    """The beginning of a text, with a mark where it was cut."""
    return text if len(text) <= TEXT_CHARS else f"{text[:TEXT_CHARS]}… ({len(text)} characters)"


def lightened(event: Event) -> Event:
    """The event without its payload, its texts cut: for one that is dead-lettered whole and decides nothing more."""
    return replace(event, **_light_fields(event))


def _light_fields(one: Any) -> dict[str, Any]:
    return {field.name: _light(getattr(one, field.name)) for field in fields(one)}


def _light(value: Any) -> Any:
    if isinstance(value, Opened | TraceContext | ReplyTo):
        return None
    if isinstance(value, Cause):
        return replace(value, **_light_fields(value))
    if isinstance(value, Address):
        return value if len(value) <= TEXT_CHARS else None
    return short(value) if isinstance(value, str) else value
