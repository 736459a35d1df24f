"""Stacks: what the threads of a worker do, asked by its pool and written by the worker itself.

A thread of the worker waits for the question and answers with the stacks of all threads. It needs the
interpreter's lock for that. While C code keeps the lock, a signal makes `faulthandler` write instead, which
needs no lock: each thread that gets the signal writes its own stack. To let one thread write those of all
would be simpler, but it reads frames that others are changing, and was seen to crash busy workers.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

MOST_BYTES = 60_000
"""Of an answer, which a socket takes without a wait."""

MOST_FRAMES = 100

SIGNAL = signal.SIGWINCH
"""It is ignored by default, so a program that a job has started and that gets it by mistake goes on."""

NONCE_BYTES = 8
END = b"\0"

_tgkill = getattr(ctypes.CDLL(None), "tgkill", None)


class Stacks:
    """What connects a pool with one worker and the processes that are forked from it.

    The pool makes it before it forks the worker, which calls `answer`.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._received = b""
        self._nonce = b""
        # A file never makes a handler wait, nor lets it change `errno`, on which the interrupted code relies.
        self._file = _appended_file()

    def answer(self) -> None:
        """Let this process answer from now on; what it forks answers to the signal."""
        faulthandler.register(SIGNAL, self._file, all_threads=False)
        threading.Thread(target=self._serve, name="stacks", daemon=True).start()

    def ask(self) -> None:
        """Ask the worker's thread."""
        self._nonce = os.urandom(NONCE_BYTES // 2).hex().encode()
        self._received = b""
        with contextlib.suppress(OSError):  # it has ended, or has not read what it was asked before
            self._ours.send(self._nonce)

    def answered(self) -> str | None:
        """The thread's answer, once it has come."""
        with contextlib.suppress(OSError):
            while part := self._ours.recv(65_536):
                self._received += part
        *answers, self._received = self._received.split(END)
        found = [each for each in answers if each.startswith(self._nonce)]
        return found[-1][NONCE_BYTES:].decode(errors="replace") if found else None

    def signal(self, pid: int, thread: int) -> None:
        """Let a thread of the worker, or of a process that is forked from it, write its own stack."""
        os.ftruncate(self._file, 0)
        with contextlib.suppress(ProcessLookupError):
            if _tgkill is not None:
                _tgkill(pid, thread, int(SIGNAL))
            elif thread == pid:
                os.kill(pid, SIGNAL)

    def written(self) -> str:
        """What the handler of the signal has written since."""
        return os.pread(self._file, MOST_BYTES, 0).decode("ascii", "replace")

    def bound(self) -> None:
        """Forget what nobody has asked for: a terminal that changes its size sends the signal, too."""
        if os.fstat(self._file).st_size > MOST_BYTES:
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Close it, in the pool."""
        self._ours.close()
        self._theirs.close()
        os.close(self._file)

    def _serve(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with contextlib.suppress(OSError):
            while asked := self._theirs.recv(4096):
                text = stacks_of_threads().encode(errors="replace")[:MOST_BYTES]
                self._theirs.sendall(asked[-NONCE_BYTES:] + text.replace(END, b"?") + END)


def stacks_of_threads() -> str:
    """The stacks of all threads but this one, the main thread's first, as `faulthandler` shows them.

    >>> "Thread MainThread" in stacks_of_threads()
    False
    """
    names = {each.ident: each.name for each in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sys._current_frames()
    frames.pop(threading.get_ident(), None)
    parts = [
        _stack(names.get(ident, "without a name"), frames[ident])
        for ident in sorted(frames, key=lambda ident: ident != main)
    ]
    return "\n".join(parts)


def _stack(name: str, frame: FrameType | None) -> str:
    lines = [f"Thread {name} (most recent call first):"]
    while frame is not None and len(lines) <= MOST_FRAMES:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_qualname}')
        frame = frame.f_back
    return "\n".join([*lines, *(["  ..."] if frame else []), ""])


def _appended_file() -> int:
    """A file without a name. Each write goes to its end, wherever that is by then."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("stacks")
    else:
        file, path = tempfile.mkstemp()
        Path(path).unlink()
    fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
    return file
