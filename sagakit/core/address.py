"""Where a step stands: `scope/step[element]#turn`, a plain name in the simple case."""

import re
from dataclasses import dataclass
from typing import Final, Self

_PART: Final = re.compile(r"([a-z][a-z0-9_]*)(?:\[(0|[1-9][0-9]*)\])?(?:#([1-9][0-9]*))?")


class InvalidAddressError(ValueError):
    """A step address does not read `name[element]#turn`, parts joined by `/`, names `[a-z][a-z0-9_]*`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of an address: the name in the definition, which element of a list, which turn of a repetition."""

    name: str
    element: int | None = None
    turn: int = 0

    def __str__(self) -> str:
        element = "" if self.element is None else f"[{self.element}]"
        turn = f"#{self.turn}" if self.turn else ""
        return f"{self.name}{element}{turn}"


class Address(str):
    """The one text form of a step address; equal addresses are equal strings (`#0` is never written)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check `text` and give it as an address.

        Raises:
            InvalidAddressError: if the text is not in the one form that an address has.
        """
        for part in text.split("/"):
            if _PART.fullmatch(part) is None:
                raise InvalidAddressError(
                    f"{text!r} is not a step address: {part!r} must read name[element]#turn with a name of lower-case "
                    "letters, digits and underscores that begins with a letter"
                )
        return cls(text)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The scopes from the outermost on, then the step."""
        return tuple(
            Part(name=name, element=None if element is None else int(element), turn=int(turn or 0))
            for name, element, turn in (_PART.fullmatch(part).groups() for part in self.split("/"))  # type: ignore[union-attr]
        )

    @property
    def name(self) -> str:
        """The step's own name, as expressions call it."""
        return self.parts[-1].name
