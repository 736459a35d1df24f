"""A pipe to oneself: signal handlers and other threads end a process's wait for work with it."""

from __future__ import annotations

import contextlib
import os


class WakePipe:
    """Give `reader` to `readable`, and call `wake` from anywhere; `drain` it after each wait."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)

    def __enter__(self) -> None:
        """Close it at the end of the block."""

    def __exit__(self, *_: object) -> None:
        ours, self.reader, self.writer = (self.reader, self.writer), -1, -1
        for each in ours:
            os.close(each)

    def wake(self) -> None:
        """End the wait that is under way, or the next one; does nothing once it is closed."""
        if self.writer >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self.writer, b"!")

    def drain(self) -> None:
        """Forget the calls of `wake` so far."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, 4096)
