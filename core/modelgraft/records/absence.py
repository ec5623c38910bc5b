"""What stands where the routes of a graph left a record out."""

from __future__ import annotations

from typing import Final


class Absent:
    """The output of a record that the routes of the graph left out. There is one: ABSENT. It is false."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "absent"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "ABSENT"  # a copy, or one from another process, is the same one


ABSENT: Final = Absent()
