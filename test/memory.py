"""How much memory this process holds, for the soaks."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

ALLOWED_GROWTH = 0.01


def resident_bytes() -> int:
    """Memory in use after what can be given back was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
