"""The stories that the kept histories tell. `python -m tests.histories.record` writes those that are not kept yet.

A history that is kept is never written again: it is what running sagas have in their backlog.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sagakit.core.address import Address
from sagakit.core.events import Outcome, Refusal, Refused, ReplyTo
from sagakit.core.values import Data
from sagakit.proving.histories import to_json
from tests.histories.orders import PLACE_ORDER, RESTOCK
from tests.unit.core.story import Story, opened

FOLDER: Final = Path(__file__).parent / "level_1"
ORDER: Data = {"sku": "tea", "cents": 1_250, "gift": False, "to": "Ghent", "note": "not read, so not kept"}
RESERVED = opened("shop.StockReserved", {"reservation_id": "r-7", "shelf": 4})
BOOKED = opened("shop.ParcelBooked", {"tracking": "T-1", "carrier": "swift"})


def ordered(**changes: bool) -> Story:
    """An order is placed, and somebody waits for its result."""
    story = Story(PLACE_ORDER)
    story.starts({**ORDER, **changes}, reply_to=ReplyTo(topic="saga.results", partition=2))
    return story


def charged(**changes: bool) -> Story:
    """An order that is reserved and charged; the parcel is being booked."""
    story = ordered(**changes)
    story.replies("reserve", payload=RESERVED)
    if changes.get("gift"):
        story.replies("wrap")
    story.replies("charge")
    return story


def completed() -> Story:
    """All goes well, after the card was charged at the second attempt."""
    story = ordered(gift=True)
    story.replies("wrap")
    story.replies("reserve", payload=RESERVED)
    story.replies("charge", Outcome.FAILED, code="ConnectionError", message="bank away")
    story.timer()
    story.replies("charge", attempt=1)
    story.replies("ship", payload=BOOKED)
    story.replies("mark")
    return story


def compensated() -> Story:
    """The parcel cannot be sent: what was done is undone, in reverse order, one undoing at the second attempt."""
    story = charged(gift=True)
    story.replies("ship", Outcome.REJECTED, code="UNDELIVERABLE", message="no carrier goes there")
    story.timer()
    story.timer()
    story.replies("charge", undo=True)
    story.replies("wrap", undo=True)
    story.replies("reserve", undo=True)
    return story


def parked_undoing() -> Story:
    """The card is declined after an attempt that may have gone through; the refund is refused, a person settles it."""
    story = ordered()
    story.replies("reserve", payload=RESERVED)
    story.timer()
    story.timer()
    story.replies("charge", Outcome.REJECTED, code="CARD_DECLINED")
    story.replies("charge", Outcome.REJECTED, undo=True, code="CLOSED", message="account closed")
    story.retries("charge")
    story.timer()
    story.timer()
    story.timer()
    return story


def cancelled() -> Story:
    """Cancelled in time: a step that was in flight answers late, and is undone as well."""
    story = ordered(gift=True)
    story.replies("wrap")
    story.cancels()
    story.cancels()
    story.replies("reserve", payload=RESERVED)
    story.replies("reserve", undo=True)
    story.replies("wrap", undo=True)
    return story


def cancelled_too_late() -> Story:
    """Cancelled while the parcel is being booked; nobody knows, until the carrier answers late: the order goes on."""
    story = charged()
    story.cancels()
    story.timer()
    story.replies("ship", payload=BOOKED)
    story.replies("mark", Outcome.FAILED, code="KeyError")
    story.timer()
    story.timer()
    story.skips("mark")
    return story


def pivot_did_not_happen() -> Story:
    """The parcel's fate is unknown; a person finds out that it was never booked, and says so."""
    story = charged()
    for _ in range(3):
        story.timer()
    story.cancels()
    story.cancels("ship")
    story.replies("charge", undo=True)
    story.replies("reserve", undo=True)
    return story


def deadline_and_signals() -> Story:
    """Signals before the saga and during it, one of them expired; then the deadline comes."""
    story = Story(PLACE_ORDER)
    story.signals(message_id="s-1", keep_ms=100)
    story.signals(message_id="s-2", keep_ms=90_000)
    story.timer()
    story.starts(ORDER, deadline_ms=5_000)
    story.replies("reserve", payload=RESERVED)
    story.signals(message_id="s-3", keep_ms=90_000)
    story.replies("charge", Outcome.EXPIRED)
    story.now_ms = 6_500
    story.timer()
    story.timer()
    story.timer()
    return story


def ended_with_late_records() -> Story:
    """After the end everything is only recorded; the key runs again, since it was compensated, and then ends well."""
    story = ordered()
    story.replies("reserve", Outcome.REJECTED, code="OUT_OF_STOCK")
    story.replies("reserve", attempt=1, payload=RESERVED)
    story.signals()
    story.cancels()
    story.starts(ORDER, message_id="start-1")
    story.starts(ORDER)
    story.replies("reserve", payload=RESERVED)
    story.replies("reserve", attempt=1, payload=RESERVED)
    story.replies("charge")
    story.replies("ship", payload=BOOKED)
    story.replies("mark")
    story.starts(ORDER)
    return story


def refused_and_ended_by_hand() -> Story:
    """A command that is too large, a compensation and an end event without a value: each waits for a person."""
    story = Story(RESTOCK)
    story.starts({}, refusals=(Refusal(target=Refused.COMMAND, address=Address("order"), reason="too large"),))
    story.retries("order")
    story.replies("order")
    story.replies("count")
    story.cancels()
    story.skips("order")
    return story


def ended_without_its_event() -> Story:
    """The event of the end has no value: a person has it end without."""
    story = Story(RESTOCK)
    story.starts({})
    story.replies("order")
    story.replies("count")
    story.retries()
    story.skips()
    return story


STORIES: Final[tuple[Callable[[], Story], ...]] = (
    completed,
    compensated,
    parked_undoing,
    cancelled,
    cancelled_too_late,
    pivot_did_not_happen,
    deadline_and_signals,
    ended_with_late_records,
    refused_and_ended_by_hand,
    ended_without_its_event,
)


def text(story: Story) -> str:
    """A story as it is kept: one transition and one action a line."""
    kept = {
        "history": [to_json(fact) for fact in story.history],
        "actions": [to_json(action) for action in story.actions],
        "state": [to_json(story.state)],
    }
    parts = [
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n]"
        for name, lines in kept.items()
    ]
    return f'{{\n"saga_id": "{story.saga_id}",\n' + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Write the histories that are not kept yet."""
    FOLDER.mkdir(exist_ok=True)
    for tell in STORIES:
        kept = FOLDER / f"{tell.__name__}.json"
        if not kept.exists():
            kept.write_text(text(tell()), encoding="utf-8")


if __name__ == "__main__":
    main()
