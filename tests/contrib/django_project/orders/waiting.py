"""Waiting for tasks."""

import time


def ended(result):
    """The result of a task once that has ended."""
    until = time.monotonic() + 60
    while not result.is_finished:
        assert time.monotonic() < until
        time.sleep(0.02)
        result.refresh()
    return result
