"""Kills a process's children when that process dies, however it dies.

Run as a script, never imported: its parent holds the write end of the pipe that is standard input here, and writes a
line `+<process group>` for each child that it starts and `-<process group>` for each that it has reaped. The end of
that pipe means that the parent is gone, also after SIGKILL, and every process group that is still listed is killed.
This is done by a process of its own because the alternative, Linux's parent-death signal, follows the *thread* that
started the child, is lost by every change of user, and is not there on other systems.
"""

import os
import signal
import sys


def watch() -> None:
    """Read the list until the parent dies, then kill what is left on it."""
    groups: set[int] = set()
    for line in sys.stdin:
        sign, group = line[0], int(line[1:])
        if sign == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended by itself between the parent's death and now


if __name__ == "__main__":
    watch()
