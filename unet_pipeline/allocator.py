"""Keep the memory of large arrays for the next ones.

The C library gives a large array back to the system when it is freed, and the next one has to be fetched page by page
again; networks on a CPU free and take hundreds of megabytes in every pass.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Names of glibc's malloc.h for what `mallopt` sets."""


def keep_pages() -> bool:
    """Let this process keep freed memory, up to the most it ever held; its peak stays what it was.

    Returns:
        Whether that was possible: the C library is glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
