"""How much memory a process uses."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def resident(pid: int | None = None) -> int:
    """Bytes of memory that this process, or the one called `pid`, has in use now; 0 where nobody tells."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    except (OSError, IndexError):
        if pid is None and sys.platform == "darwin":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # its peak, the best there is
        return 0
    return pages * resource.getpagesize()
