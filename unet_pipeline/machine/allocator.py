"""The memory of freed arrays: the C library gives it back at once, or keeps it for the next ones.

Left alone, glibc learns to keep ever larger pieces, and each thread keeps its own: a stage whose threads pass arrays on
then holds several times the memory it uses. Networks on a CPU, however, free and take hundreds of megabytes in every
pass, and pages given back have to be fetched one by one again.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8
"""Names of glibc's malloc.h for what `mallopt` sets."""
LARGE_BYTES = 2**20
"""Arrays from this size are given back as soon as they are freed."""


def give_back_pages() -> bool:
    """Let this process give large arrays back when they are freed, so that its memory is what it uses.

    It costs stages without a network about a tenth of their time.

    Returns:
        Whether that was possible: the C library is glibc.
    """
    return _set((ARENA_MAX, 2), (MMAP_THRESHOLD, LARGE_BYTES))


def keep_pages() -> bool:
    """Let this process keep freed memory, up to the most it ever held; its peak stays what it was.

    Returns:
        Whether that was possible: the C library is glibc.
    """
    return _set((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1))


def _set(*options: tuple[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return all([mallopt(name, value) for name, value in options])
