"""Properties that are made once, without the lock of `functools.cached_property`.

Python 3.11 takes that lock at the first access, which costs more than most of what is made here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Self, TypeVar, overload

S = TypeVar("S")
T = TypeVar("T")


class made_once(Generic[S, T]):
    """A property that is made when it is asked for first, and is an attribute from then on."""

    def __init__(self, make: Callable[[S], T]) -> None:
        self._make, self._name = make, make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...

    @overload
    def __get__(self, owner: S, kind: type) -> T: ...

    def __get__(self, owner: S | None, kind: type) -> Self | T:
        """Make the value and keep it; the next access finds it without coming here."""
        if owner is None:
            return self

        made = owner.__dict__[self._name] = self._make(owner)
        return made
