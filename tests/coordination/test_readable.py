"""Waiting for descriptors, whatever their numbers."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from packmule.coordination.readable import readable


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    reader, writer = os.pipe()
    above = fcntl.fcntl(reader, fcntl.F_DUPFD, 2000)
    os.close(reader)
    yield above, writer
    os.close(above)
    os.close(writer)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_descriptor_above_1023_is_waited_for(pipe):
    reader, writer = pipe
    assert readable([reader], 0) == []
    os.write(writer, b"!")
    assert readable([reader], None) == [reader]


def test_what_has_ended_is_readable_and_what_was_given_is_returned():
    near, far = socket.socketpair()
    other, _kept = socket.socketpair()
    with near, other, _kept:
        far.close()
        assert readable([other, near], 5) == [near]


def test_nothing_to_wait_for_is_a_pause():
    assert readable([], 0.001) == []
    assert readable([], -1) == []


def test_a_closed_descriptor_is_an_error_and_no_busy_loop(pipe):
    reader, _ = pipe
    copy = os.dup(reader)
    os.close(copy)
    with pytest.raises(OSError, match="closed descriptor"):
        readable([copy], 5)
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="negative"):
        readable([closed], 5)
