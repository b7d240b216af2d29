"""Calling a C library through ctypes: argument kinds, statuses checked, handles given back."""

from __future__ import annotations

import ctypes as c
import os
from typing import Any, Callable, Dict, List, Mapping, Tuple

from .engines import EngineError

KINDS: Dict[str, Any] = {
    "p": c.c_void_p,
    "s": c.c_char_p,
    "i": c.c_int,
    "z": c.c_size_t,
    "b": c.c_bool,
    "P": c.POINTER(c.c_void_p),
    "S": c.POINTER(c.c_char_p),
    "I": c.POINTER(c.c_int),
    "Z": c.POINTER(c.c_size_t),
    "L": c.POINTER(c.c_int64),
}
"""One letter per argument: lower case is passed by value, upper case is a place for a result or an array."""


def open_library(path: str) -> c.CDLL:
    """Loads a shared library; EngineError says what the loader misses (usually a newer libc)."""
    try:
        return c.CDLL(os.path.abspath(path))
    except OSError as error:
        raise EngineError("the runtime does not load on this device: %s" % error) from error


class Api:
    """The functions of a C interface whose calls return a status that is zero when all is well.

    Args:
        functions: name → function.
        words: what a status other than zero means.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]], words: Callable[[Any], str]) -> None:
        self.functions = functions
        self._words = words
        self._owned: List[Tuple[str, int]] = []

    def check(self, name: str, status: Any) -> None:
        """Raises EngineError if the status is an error."""
        if status:
            raise EngineError("%s: %s" % (name, self._words(status)))

    def call(self, name: str, *arguments: Any) -> None:
        """Calls and checks."""
        self.check(name, self.functions[name](*arguments))

    def get(self, name: str, *arguments: Any, kind: Any = c.c_void_p) -> Any:
        """Calls with a place for one result behind the arguments, and returns that result."""
        place = kind()
        self.call(name, *arguments, c.byref(place))
        return place.value

    def own(self, release: str, name: str, *arguments: Any) -> Any:
        """Like `get`, for a handle that `close` gives back through `release`."""
        handle = self.get(name, *arguments)
        self._owned.append((release, handle))
        return handle

    def release_last(self, release: str) -> None:
        """Gives back the latest handles as far as they are of this kind."""
        while self._owned and self._owned[-1][0] == release:
            self.functions[release](self._owned.pop()[1])

    def close(self) -> None:
        """Gives all handles back, latest first."""
        while self._owned:
            release, handle = self._owned.pop()
            self.functions[release](handle)
