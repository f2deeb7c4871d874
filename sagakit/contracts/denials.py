"""Schema ids that the registry denies. A new one may be on its way to the replica that was asked: once is not final."""

from typing import Final

FINAL_AFTER_MS: Final = 400
"""For how long an id has to be denied: a partition that waits for it is read again half a second later."""

_REMEMBERED_MS: Final = 60_000
_MANY: Final = 1_000


class Denials:
    """Which schema ids are denied: since when, and when last."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int]] = {}

    def is_final(self, schema_id: int, now_ms: int) -> bool:
        """Note a denial at `now_ms` (milliseconds); whether it has lasted long enough to be final."""
        since_ms, last_ms = self._known.get(schema_id, (now_ms, now_ms))
        if not 0 <= now_ms - last_ms <= _REMEMBERED_MS:
            since_ms = now_ms
        if len(self._known) >= _MANY:
            self._known = {one: at for one, at in self._known.items() if 0 <= now_ms - at[1] <= _REMEMBERED_MS}
        self._known[schema_id] = since_ms, now_ms
        return now_ms - since_ms >= FINAL_AFTER_MS
