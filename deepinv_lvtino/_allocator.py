r"""The allocator of the C library, set for programs that work on large arrays."""

from __future__ import annotations

import ctypes
import sys

# parameters of mallopt, as in malloc.h of glibc
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    r"""
    Keep the memory of freed arrays for the next ones, for the rest of the process.

    By default glibc maps every array above 32 MB afresh and gives it back to the kernel
    when it is freed. The kernel then clears page after page of every temporary result,
    which at full video size takes longer than computing it. Here arrays come from the
    heap instead, whose pages stay. The process keeps the memory of its peak; so this is
    for programs, which call it once, and not done on import.

    :return: (bool) whether it was done; elsewhere than under glibc it is not needed, or
        not known how.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _LARGEST),
        (_M_TOP_PAD, 2**26),
    )
    return all([bool(mallopt(name, value)) for name, value in settings])
