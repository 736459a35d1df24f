"""How many jobs to claim at once: one to begin with, more while they are short."""

from __future__ import annotations

BATCH_SECONDS = 0.01
"""What a batch should take: short enough that no job waits long behind its batch."""

MOST = 64


class BatchSize:
    """The size of the next claim, learnt from how long the last jobs took."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.size = 1

    def learn(self, jobs: int, seconds: float) -> None:
        """Take note that `jobs` jobs took `seconds` in all: at most double, or fall to what fits."""
        fitting = int(BATCH_SECONDS * jobs / seconds) if seconds > 0 else self.most
        self.size = max(1, min(fitting, self.size * 2, self.most))
