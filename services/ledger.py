"""What a service of the shop keeps in its own database: who called it, what it did once, and its books.

Two tables make an effect happen once and provable afterwards:

- `calls` is only ever appended to. The entry into a handler, of a command or an event, is committed at once and on its
  own, so that it survives a crash of the handler; what the handler then did is written with the effect. A row of an
  event has the direction `event`, the event's type as its step and the event's id as its command id and key.
- `effects` holds one row per idempotency key (of an event: its id) with the reply that was given. Whatever comes
  again under that key (a redelivery, a retry) is answered from there. A compensation looks for the effect under
  `ctx.undoes`; where there is none, it leaves a *fence* there, and the command, should it come late, finds the fence
  and is refused.

Effect, reply and the change to the books are one local transaction. WAL with `synchronous=NORMAL` survives a killed
process (not a lost power supply).
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from pydantic import BaseModel

from sagakit.failpoints import failpoint
from sagakit.participants import Context, EventContext, Rejected

DIRECTORY_VARIABLE: Final = "SHOP_DATA"
"""The environment variable that names the folder of the services' databases (default: `.sagakit/shop`)."""

Reply = TypeVar("Reply", bound=BaseModel)

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    what TEXT NOT NULL CHECK (what IN ('entry', 'effect', 'rejection', 'undo', 'nothing', 'fence')),
    saga_id TEXT NOT NULL,
    step TEXT NOT NULL,
    direction TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    command_id TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    undoes TEXT,
    process_id INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS effects (
    idempotency_key TEXT PRIMARY KEY,
    what TEXT NOT NULL CHECK (what IN ('effect', 'rejection', 'undo', 'nothing', 'fence', 'event')),
    saga_id TEXT NOT NULL,
    undoes TEXT,
    reply TEXT NOT NULL,
    at_ms INTEGER NOT NULL
);
"""


class Ledger:
    """The database of one service, `<folder>/<service>.sqlite`; opened at first use, one connection a thread."""

    def __init__(self, service: str, books: str = "") -> None:
        """`books` is SQL that makes and fills the service's own tables, if they are not there yet."""
        self._service = service
        self._books = books
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._generation = 0

    @property
    def path(self) -> Path:
        """The database's file."""
        return Path(os.environ.get(DIRECTORY_VARIABLE, ".sagakit/shop")) / f"{self._service}.sqlite"

    def close(self) -> None:
        """Close all connections; the next use opens the file that the environment names then. Nobody may be at work."""
        with self._lock:
            self._generation += 1
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def once(self, ctx: Context, reply: type[Reply], effect: Callable[[sqlite3.Connection], Reply]) -> Reply:
        """Do `effect` once per idempotency key, and give its reply, also when it was done before.

        A rejection is kept like a reply: asked again, the same command must not suddenly take effect.

        Raises:
            Rejected: `effect` raised it, now or before; or the command was compensated before it came (`FENCED`).
        """
        with self._transaction(ctx) as connection:
            stored = kept = _stored(connection, ctx.idempotency_key)
            if stored is None:
                stored = self._do(connection, ctx, "effect", effect)
        return self._leave(ctx, reply, stored, new=kept is None)

    def undo(
        self,
        ctx: Context,
        reply: type[Reply],
        undo: Callable[[sqlite3.Connection], Reply],
        nothing: Callable[[], Reply],
    ) -> Reply:
        """Undo the effect under `ctx.undoes`, once; without one, fence the late command and say `nothing`."""
        assert ctx.undoes is not None  # a compensation handler is never called without
        with self._transaction(ctx) as connection:
            stored = kept = _stored(connection, ctx.idempotency_key)
            if stored is None:
                forward = _stored(connection, ctx.undoes)
                if forward is not None and forward[0] == "effect":
                    stored = self._do(connection, ctx, "undo", undo)
                else:
                    if forward is None:
                        _keep(connection, ctx, ctx.undoes, "fence", "{}")
                        _note(connection, _row_of(ctx), "fence")
                    stored = self._do(connection, ctx, "nothing", lambda _: nothing())
        return self._leave(ctx, reply, stored, new=kept is None)

    def notice(self, ctx: EventContext, effect: Callable[[sqlite3.Connection], object]) -> bool:
        """Do `effect` once per event id; False if it was done before."""
        connection = self.connection()
        _note(connection, _row_of(ctx), "entry")  # on its own, at once
        connection.execute("BEGIN IMMEDIATE")
        try:
            kept = connection.execute(
                "INSERT OR IGNORE INTO effects VALUES (?, 'event', ?, NULL, '{}', ?)",
                (ctx.event_id, ctx.correlation_id or "", _now_ms()),
            ).rowcount
            if kept:
                effect(connection)
                _note(connection, _row_of(ctx), "effect")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return bool(kept)

    def connection(self) -> sqlite3.Connection:
        """This thread's connection, in autocommit mode: write in a transaction of your own."""
        if getattr(self._local, "generation", None) != self._generation:
            self._local.connection = self._open()
            self._local.generation = self._generation
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _open(self) -> sqlite3.Connection:
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} {self._books} COMMIT;")
            self._connections.append(connection)
            return connection

    @contextmanager
    def _transaction(self, ctx: Context) -> Iterator[sqlite3.Connection]:
        connection = self.connection()
        _note(connection, _row_of(ctx), "entry")  # on its own, at once
        failpoint("participant.in-handler", ctx.command_id)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            failpoint("participant.in-local-transaction", ctx.command_id)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _do(
        self, connection: sqlite3.Connection, ctx: Context, what: str, act: Callable[[sqlite3.Connection], BaseModel]
    ) -> tuple[str, str]:
        connection.execute("SAVEPOINT act")
        try:
            reply = act(connection).model_dump_json()
        except Rejected as rejected:
            connection.execute("ROLLBACK TO act")
            what = "rejection"
            reply = json.dumps({"code": rejected.code, "message": rejected.message, "details": rejected.details})
        _keep(connection, ctx, ctx.idempotency_key, what, reply)
        _note(connection, _row_of(ctx), what)
        return what, reply

    def _leave(self, ctx: Context, reply: type[Reply], stored: tuple[str, str], *, new: bool) -> Reply:
        """Give the reply; a crash here is one between effect and reply, where there is an effect that is `new`."""
        if new and stored[0] in ("effect", "undo"):
            failpoint("participant.between-effect-and-reply", ctx.command_id)
        return _answer(stored, reply)


def _stored(connection: sqlite3.Connection, idempotency_key: str) -> tuple[str, str] | None:
    row: tuple[str, str] | None = connection.execute(
        "SELECT what, reply FROM effects WHERE idempotency_key = ?", (idempotency_key,)
    ).fetchone()
    return row


def _keep(connection: sqlite3.Connection, ctx: Context, idempotency_key: str, what: str, reply: str) -> None:
    connection.execute(
        "INSERT INTO effects VALUES (?, ?, ?, ?, ?, ?)",
        (idempotency_key, what, ctx.saga_id, ctx.undoes, reply, _now_ms()),
    )


_Row: TypeAlias = tuple[str, str, str, int, str, str, str | None]
"""What a row of `calls` says of the message: saga, step, direction, attempt, id, idempotency key, what it undoes."""


def _row_of(ctx: Context | EventContext) -> _Row:
    if isinstance(ctx, EventContext):
        return ctx.correlation_id or "", ctx.type, "event", ctx.attempt, ctx.event_id, ctx.event_id, None
    return ctx.saga_id, ctx.address, ctx.direction, ctx.attempt, ctx.command_id, ctx.idempotency_key, ctx.undoes


def _note(connection: sqlite3.Connection, row: _Row, what: str) -> None:
    connection.execute(
        "INSERT INTO calls VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (what, *row, os.getpid(), _now_ms())
    )


def _answer(stored: tuple[str, str], reply: type[Reply]) -> Reply:
    what, text = stored
    if what == "rejection":
        kept = json.loads(text)
        raise Rejected(kept["code"], kept["message"], kept["details"])
    if what == "fence":
        raise Rejected("FENCED", "the command was compensated before it came, so it must not take effect any more")
    return reply.model_validate_json(text)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
