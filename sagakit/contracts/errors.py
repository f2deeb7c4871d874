"""What can be wrong with bytes, data and schemas."""

from collections.abc import Sequence


class UndecodableError(Exception):
    """Bytes that can never be read, however often they are tried: the record belongs in the dead-letter topic.

    `reason` says what is wrong with them.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownSchemaIdError(UndecodableError):
    """The registry denies `schema_id`. It may not have caught up yet: `contracts.denials` says when that is final."""

    def __init__(self, reason: str, schema_id: int) -> None:
        super().__init__(reason)
        self.schema_id = schema_id


class UnencodableError(Exception):
    """Data that does not fit its schema. `path` names the field (`items[2].price`), `reason` what is wrong with it."""

    def __init__(self, record: str, path: Sequence[str | int], reason: str) -> None:
        self.record = record
        self.path = path_text(path)
        self.reason = reason
        super().__init__(f"{record}: {self.path}: {reason}" if self.path else f"{record}: {reason}")


class SchemaError(Exception):
    """A schema that cannot be used; the message names the file or record and says what to do."""


def path_text(path: Sequence[str | int]) -> str:
    """A path through nested data as people write it: names joined by dots, elements in brackets."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
