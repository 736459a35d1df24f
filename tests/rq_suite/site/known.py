"""Tells pytest which tests are known to fail, and why: known.toml. One that passes after all is a failure."""

import multiprocessing
import os
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    """Mark the known ones."""
    collected = {item.nodeid.removeprefix("tests/"): item for item in items}
    for name, mark in known():
        if name in collected:
            collected[name].add_marker(mark)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Cancel the alarm that some tests leave set, which would end a later test."""
    signal.alarm(0)


def pytest_unconfigure():
    """End the workers that a failed test left, which Python would wait for."""
    for process in multiprocessing.active_children():
        process.kill()


def known() -> Iterator[tuple[str, pytest.MarkDecorator]]:
    path = os.environ["RQ_SUITE_KNOWN"]
    for group in tomllib.loads(Path(path).read_text())["group"] if path else ():
        mark = pytest.mark.xfail(reason=group["reason"], run=group.get("run", True), strict=True)
        yield from ((name, mark) for name in group["tests"])
