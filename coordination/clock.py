"""A clock for leases: it goes on while this process, or its whole machine, is frozen."""

from __future__ import annotations

import time
from functools import partial

clock = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds since some instant of this machine's boot."""
