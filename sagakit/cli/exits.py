"""The exit codes of every command."""

from typing import Final

DONE: Final = 0
"""Done; or the answer is yes."""

NO: Final = 1
"""Done, and the answer is no: findings, differences, a failed check, no such saga or definition."""

WRONG: Final = 2
"""The command line, a setting or a file that was given is wrong."""

UNREACHABLE: Final = 3
"""Kafka or the registry does not answer, or did not confirm in time. Trying again may help."""

REFUSED: Final = 4
"""The broker, the registry or sagakit itself refuses. Trying again will not help."""

INTERNAL: Final = 70
"""A bug in sagakit: the traceback says where (`EX_SOFTWARE` of sysexits.h)."""

INTERRUPTED: Final = 130
"""Ended by Ctrl-C."""


class CommandError(Exception):
    """A command cannot do what it was asked for; the message is one line that says what to do."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
