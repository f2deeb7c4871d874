"""When to try again: a pure decision, its jitter derived from the command's id."""

from typing import Final

from sagakit.core.definition import RetryPolicy

_JITTER_DIGITS: Final = 8


def pause_ms(policy: RetryPolicy, attempts: int, command_id: str) -> int | None:
    """How long to wait after `attempts` commands of the present budget, the last of them `command_id`.

    The pause doubles from `backoff_ms` up to `max_ms`; of it, the upper half is jitter ("equal jitter"), so that sagas
    which failed together do not come back together. Derived from the id, it is the same in every replay.

    Returns:
        Milliseconds, or None when the attempts are used up.
    """
    if attempts >= policy.attempts:
        return None
    longest = min(policy.max_ms, policy.backoff_ms << min(attempts - 1, 62))
    half = longest // 2
    share = int(command_id[:_JITTER_DIGITS], 16) / 16**_JITTER_DIGITS
    return longest - half + int(half * share)
