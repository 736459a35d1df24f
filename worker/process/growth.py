"""Growth: a process that uses too much memory leaves, and its pool starts another."""

from __future__ import annotations

import time

from packmule.worker.kernel import resident_memory

LOOK_SECONDS = 1.0


class Growth:
    """Looks once a second at most whether this process uses more than `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._looked_at = 0.0

    def too_much(self) -> int:
        """How many bytes the process uses if they are too many, or 0."""
        now = time.monotonic()
        if now - self._looked_at <= LOOK_SECONDS:
            return 0
        self._looked_at = now
        used = resident_memory()
        return used if used > self.most else 0
