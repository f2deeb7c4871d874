"""What may be said of an evaluation that failed: the kind of the failure, never a value of the data.

The runtime quotes values (`Key not found in map : "…"`, the text that is no regular expression, an index). Its messages
go to transitions, dead letters and logs, past the mask of the schema; so of each known message only what comes from the
expression and the types is kept, and of an unknown one nothing.
"""

import re
from typing import Final

UNKNOWN: Final = "it has no value for this data"

_TYPE: Final = r"'?(?:null_type|bool|u?int(?:64)?|double|string|bytes|list|map|timestamp|duration|type|dyn)'?"

_OPERATOR: Final = r"[\w@!<>=%*/+\-?:\[\]|&.]+"

# Group 1 of the first that matches from the beginning is what is said.
_KNOWN: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(Key not found in map)\b",
        r"((?:divide|modulus) by zero)$",
        r"((?:integer|unsigned integer|int64|uint64|double|timestamp|duration|size) (?:overflow|underflow))\b",
        rf"({_TYPE} out of {_TYPE} range)$",
        r"(Index error: expected integer type)\b",
        r"(Index error)\b",
        rf"(cannot convert {_TYPE} to {_TYPE})$",
        rf"(Type conversion error from {_TYPE} to {_TYPE})$",
        rf"({_TYPE} to {_TYPE} conversion failed)$",
        rf"(Invalid container type: {_TYPE})$",
        r"(Iteration budget exceeded)$",
        r"(invalid regular expression)\b",
        r"(duplicate key in map)\b",
        r"(malformed UTF-8 bytes)$",
        r"(Applying SELECT to non-message type)$",
        rf"(No matching overloads found : {_OPERATOR}(?:\((?:{_TYPE}(?:, {_TYPE})*)?\))?)$",
        rf"(No matching overloads found : \({_TYPE}\){_OPERATOR}\((?:{_TYPE}(?:, {_TYPE})*)?\))$",
        r"(No matching overloads found)\b",
    )
)
_STATUS: Final = re.compile(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$")


def without_values(message: str) -> str:
    """The kind of failure that a message of the runtime tells, without what it quotes of the data."""
    plain = _STATUS.sub("", message)
    for known in _KNOWN:
        found = known.match(plain)
        if found is not None:
            return found[1]
    return UNKNOWN
