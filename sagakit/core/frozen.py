"""Frozen dataclasses, whose being frozen is checked at run time only where the engine is not compiled.

A frozen dataclass sets each field through `object.__setattr__`: a tenth of what an event costs, which makes a dozen of
them. The type checker forbids every assignment in either build, and the tests run in the one that raises.
"""

import dataclasses
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from sagakit.core.placement import partition_of

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    _CHECKED: Final = isinstance(partition_of, FunctionType)  # compiled, it is a built-in

    def dataclass(*, frozen: bool, **options: Any) -> Callable[[type], type]:
        """As `dataclasses.dataclass`; equal values stay equal, and hash alike, also where nothing is checked."""
        return dataclasses.dataclass(frozen=frozen and _CHECKED, unsafe_hash=frozen and not _CHECKED, **options)
