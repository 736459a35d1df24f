"""Starts Python programs for tests as forks of a process that has already imported most of what they need.

A fresh interpreter spends more than half a second of processor time on imports, a fork a few milliseconds.
Each program is a process of its own all the same, with its arguments, environment, folder, output, signals
and exit code, and it runs a module as `python -m` does. What tests the start itself starts an interpreter.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import random
import runpy
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from packmule.coordination.readable import readable

PRELOADED = (
    *("cli", "jobs.email", "jobs.files", "jobs.image", "observe.tracing", "scheduler.scheduler"),
    *("worker.pool.pool", "worker.process.worker"),
    *(f"terminal.{name}" for name in ("app", "dashboard", "enqueue", "job", "queue", "schedule", "worker")),
)
"""Modules of packmule that every program finds imported."""

_NUMBER = struct.Struct("=q")


class Forked(subprocess.Popen[Any]):
    """A program that the fork server starts: `Forked(["packmule", "status"], cwd=..., env=...)`.

    The first argument names a module. Of Popen's options it heeds cwd, env, stdin, stdout, stderr, text and
    start_new_session.
    """

    def _execute_child(self, args: list[str], *options: Any) -> None:  # type: ignore[override]
        cwd, env = options[4:6]
        stdin, to_stdin, out, stdout, err, stderr = options[9:15]
        self._life, theirs = socket.socketpair()
        program = {
            "args": args,
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "in_new_session": options[-2],
        }
        files = [mine if given < 0 else given for mine, given in enumerate((stdin, stdout, stderr))]
        with theirs:
            text = json.dumps(program).encode()
            socket.send_fds(_control(), [_NUMBER.pack(len(text))], [theirs.fileno(), *files])
            _control().sendall(text)
        self.pid = self._number()
        self._child_created = True
        self._close_pipe_fds(stdin, to_stdin, out, stdout, err, stderr)  # type: ignore[attr-defined]

    def _number(self) -> int:
        """What comes from the process: its id when it can take signals; in the end, its wait status."""
        said = self._life.recv(_NUMBER.size)
        if not said:
            raise RuntimeError("the fork server is gone")
        number: int = _NUMBER.unpack(said)[0]
        return number

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if flags & os.WNOHANG and not readable([self._life], 0):
            return 0, 0
        status = self._number()
        self._life.close()
        return self.pid, status

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


@functools.cache
def _control() -> socket.socket:
    """The connection to this process's fork server, which ends with it."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "packmule.tests.fork_server", str(theirs.fileno())]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    def close() -> None:
        ours.close()
        server.wait()

    atexit.register(close)
    return ours


def _serve(control: socket.socket) -> list[str]:
    """Fork for each request, until the connection ends; in a fork, return the arguments of its program."""
    ended, on_end = os.pipe()
    os.set_blocking(on_end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(on_end)
    lives: dict[int, socket.socket] = {}
    while True:
        if ended in readable([control, ended], None):
            os.read(ended, 2**10)
            for pid, status in _reaped():
                with lives.pop(pid) as life:
                    _say(life, status)
            continue
        size, files, *_ = socket.recv_fds(control, _NUMBER.size, 4)
        if not size:
            sys.exit()
        program = json.loads(control.recv(_NUMBER.unpack(size)[0], socket.MSG_WAITALL))
        life = socket.socket(fileno=files[0])
        pid = os.fork()
        if pid:
            lives[pid] = life
            for each in files[1:]:
                os.close(each)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in (ended, on_end, control.detach(), *(other.detach() for other in lives.values())):
            os.close(each)
        _become(program, files[1:])
        _say(life, os.getpid())
        life.close()
        args: list[str] = program["args"]
        return args


def _reaped() -> list[tuple[int, int]]:
    found = []
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return found
            found.append((pid, status))
    except ChildProcessError:
        return found


def _say(life: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # the test waits no longer
        life.sendall(_NUMBER.pack(number))


def _become(program: dict[str, Any], files: list[int]) -> None:
    """Take on what a fresh process would have been given."""
    if program["in_new_session"]:
        os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(program["cwd"])
    os.environ.clear()
    os.environ.update(program["environment"])
    time.tzset()
    random.seed()
    path = program["environment"].get("PYTHONPATH")
    sys.path[:0] = [program["cwd"], *(path.split(os.pathsep) if path else [])]


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of the tests' run; each program gets its own
    for name in PRELOADED:
        importlib.import_module(f"packmule.{name}")
    module, *arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
