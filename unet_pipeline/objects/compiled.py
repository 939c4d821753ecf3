"""The one way inner loops are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile on first use, keep the machine code on disk, and run without the interpreter lock, on one core.

    No fast mathematics: the result must not depend on where a block lies. A function compiled so may call such
    functions of its own module only: the machine code on disk is renewed when the module changes, not when others do.
    """
    return cast(_Function, numba.njit(nogil=True, cache=True)(function))
