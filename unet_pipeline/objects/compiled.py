"""The one way inner loops are compiled: when they are first called, and once for a machine.

A stage that calls none of them starts without numba. The machine code is kept in the user's cache by the content of the
module, so that a second clone, a new environment and the next job find it, which compiling would cost seconds each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, update_wrapper
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

from unet_pipeline.machine.caches import user_cache

_Function = TypeVar("_Function", bound=Callable[..., Any])
PACKAGE = Path(__file__).parents[1]
_COMPILING = Lock()


def compiled(function: _Function) -> _Function:
    """Compile on first use, keep the machine code on disk, and run without the interpreter lock, on one core.

    No fast mathematics: the result must not depend on where a block lies. A function compiled so may call such
    functions of its own module only: the machine code on disk is renewed when the module changes, not when others do.
    """
    return cast(_Function, Compiled(function))


class Compiled:
    """A function that becomes machine code when it, or another of its module, is first called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Numba is not yet asked for."""
        update_wrapper(self, function)
        self._function, self._code = function, None

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns."""
        if self._code is None:
            with _COMPILING:
                self._prepare()
        return self._code(*arguments)  # type: ignore[misc]

    def _prepare(self) -> None:
        """Put numba's function in the place of this one and of those that it may call: numba looks for them there."""
        names = self._function.__globals__
        for name, one in [*names.items(), ("", self)]:
            if isinstance(one, Compiled):
                one._code = one._code or machine_code(one._function)
                if name:
                    names[name] = one._code


def machine_code(function: Callable[..., Any]) -> Any:
    """Return numba's function, which compiles for each new kind of argument, or finds what was compiled before."""
    import numba

    _keep_in_users_cache()
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no place for machine code can be written: it lasts as long as this process
        return numba.njit(nogil=True)(function)


@cache
def _keep_in_users_cache() -> None:
    """Tell numba a place for this package's code; NUMBA_CACHE_DIR goes before it, the folder of the source after it."""
    from numba.core import caching

    class UserCache(caching._CacheLocator):
        """By the content of a module: numba's own places go by its path and date, which every clone has anew."""

        def __init__(self, function: Any, file: str) -> None:
            self._content = hashlib.sha256(Path(file).read_bytes()).hexdigest()
            self._line = function.__code__.co_firstlineno
            self._folder = user_cache(f"numba/{Path(file).stem}-{self._content[:16]}")

        def get_cache_path(self) -> str:
            return str(self._folder)

        def get_source_stamp(self) -> str:
            return self._content

        def get_disambiguator(self) -> str:
            return str(self._line)

        @classmethod
        def from_function(cls, function: Any, file: str) -> Any:
            """Return the place of a function of this package, if it can be written; None leaves it to the next kind."""
            found = cls(function, file) if PACKAGE in Path(file).parents else None
            return found if found and found._folder else None

    places = caching.CacheImpl._locator_classes
    places.insert(1, UserCache)
