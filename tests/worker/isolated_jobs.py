"""Isolated jobs that leave things behind, stay long, or look at what they can reach."""

from __future__ import annotations

import gc
import importlib
import locale
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from packmule import current, job
from packmule.errors import UsageError
from packmule.jobs.batch import Batch
from packmule.jobs.storage import Storage, temporary
from packmule.tests.worker.pool_jobs import note

LEFT: list[object] = []


@job(isolate=True, reuse=3)
def who(text: str = "") -> int:
    return os.getpid()


@job(isolate=True, reuse=3, max_memory=200_000_000, max_cpu=1)
def work(how: str = "") -> int:
    if how == "memory":
        LEFT.append(bytes(100_000_000))
    if how == "too much":
        LEFT.append(bytes(1_000_000_000))
    end = time.process_time() + 0.6
    while time.process_time() < end:
        pass
    return os.getpid()


@job(isolate=True, reuse=3)
def leave(what: str) -> int:
    _set(what)
    match what:
        case "thread":
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        case "thread called progress":
            threading.Thread(target=threading.Event().wait, daemon=True, name="progress").start()
        case "file":
            LEFT.append(Path("/dev/null").open("rb"))  # noqa: SIM115  that is what it leaves
        case "output":
            with Path("/dev/null").open("wb") as file:
                os.dup2(file.fileno(), 1)
        case "child":
            LEFT.append(subprocess.Popen(["sleep", "600"]))
        case "grandchild":
            subprocess.run(["sh", "-c", "sleep 600 > /dev/null 2>&1 &"], check=True)
        case "error":
            raise ValueError("no")
        case "death":
            os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


class Hopeless(Exception):
    """What `refuse` gives up on."""


@job(isolate=True, reuse=100, max_memory=300_000_000, max_cpu=30, give_up_on=(Hopeless, ExceptionGroup))
def refuse(how: str) -> int:
    """Raise what the job declares, for a reason that is as harmless or grave as `how` says."""
    if how == "nothing":
        return os.getpid()
    try:
        _meet(how)
    except BaseException as error:
        if how == "group":
            raise ExceptionGroup("several", [Hopeless("one"), error]) from None  # type: ignore[list-item]
        raise Hopeless(how) from error
    raise Hopeless(how)


def _meet(how: str) -> None:
    match how:
        case "error":
            raise ValueError("no")
        case "frame":
            kept: list[object] = [bytearray(b"x") * 100_000_000]
            kept.append(kept)  # a cycle, which only a collection frees
        case "file":
            LEFT.append(Path("/dev/null").open("rb"))  # noqa: SIM115  that is what it leaves
        case "thread":
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        case "memory" | "group":
            LEFT.append(bytes(1_000_000_000))
        case "timeout" | "cancel":
            while True:
                time.sleep(0.01)


@job(isolate=True, reuse=10_000, network=False, give_up_on=(UsageError,))
def spoil(path: str) -> int:
    """Make a rendition of the image as the image job does, in a process that lives longer."""
    from packmule.jobs.image import image  # most pools need none

    return len(image(path, [{"width": 20}], "out")["renditions"])


def _set(what: str) -> None:
    match what:
        case "folder":
            os.chdir("/")
        case "environment":
            os.environ["LEFT"] = "1"
        case "handler":
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        case "signal":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGXCPU})
        case "timer":
            signal.setitimer(signal.ITIMER_REAL, 1000)
        case "cpu timer":
            signal.setitimer(signal.ITIMER_VIRTUAL, 1000)
        case "mask":
            os.umask(0o007)
        case "limit":
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        case "locale":
            is_plain = locale.setlocale(locale.LC_CTYPE) == "C"
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8" if is_plain else "C")
        case "processor":
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        case "group":
            os.setpgid(0, os.getppid())


@job(isolate=True)
def start_session() -> int:
    """Start a process that leaves this one's group."""
    return subprocess.Popen(["sleep", "600"], start_new_session=True).pid


@job(isolate=True)
def stay(path: str, gate: str, text: str) -> int:
    note(path, f"begin {text}")
    while not Path(gate).exists():
        time.sleep(0.01)
    note(path, f"end {text}")
    return os.getpid()


def _begin_and_end(path: str, text: str) -> None:
    note(path, f"begin {text}")
    time.sleep(0.05)
    note(path, f"end {text}")


@job(isolate=True, singleton=True)
def single(path: str, text: str) -> None:
    _begin_and_end(path, f"single {text}")


@job(isolate=True, concurrency="2 per host", retries=2)
def limited(path: str, text: str) -> None:
    _begin_and_end(path, f"limited {text}")


@job(isolate=True)
def report_isolated(path: str, title: str) -> None:
    """Note how the batch stands of which this is the callback."""
    counts = Batch.current().state().counts
    note(path, f"{title}: {counts.done} done, {counts.failed} failed, {counts.canceled} canceled")


@job(queue="high")
def mail(path: str, text: str) -> str:
    note(path, f"mail {text}")
    return text


@job(isolate=True)
def call_back(*given: object) -> None:
    """A callback of RQ's in a process of its own."""


@job(isolate=True, reuse=10)
def announce(path: str, text: str) -> None:
    note(path, f"announce {text}")
    mail.enqueue(path, text)


@job(queue="high")
def hold(path: str) -> None:
    """Hold its worker's main thread until there is a file with the number of that process."""
    note(path, f"hold {os.getpid()}")
    while not Path(f"{path}-{os.getpid()}").exists():
        time.sleep(0.01)


@job
def plain(path: str, text: str) -> str:
    note(path, f"plain {text}")
    return text


@job(isolate=True)
def connections() -> list[str]:
    """The peers of all connections that this process can use."""
    gc.collect()
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        try:
            copy = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        with copy:
            try:
                if copy.type == socket.SOCK_STREAM and copy.getpeername():
                    found.append(str(copy.getpeername()))
            except OSError:
                pass
    return found


@job(isolate=True)
def die_while_writing() -> str:
    """Be killed in the midst of the first run, with a part of a file and a folder left over."""
    storage = current.resource(Storage)
    with storage.write("whole") as part, temporary.folder() as folder:
        part.write_bytes(b"half")
        if not storage.exists("died"):
            storage.write_bytes("died", str(folder).encode())
            os.kill(os.getpid(), signal.SIGKILL)
    return storage.read_bytes("died").decode()


@job(isolate=True)
def send_garbage(garbage: list[int]) -> None:
    """Write to the pipe as a process would that a stranger's file has taken over."""
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        try:
            with socket.socket(fileno=os.dup(number)) as copy:
                if copy.family == socket.AF_UNIX and copy.getpeername() == "":
                    copy.send(bytes(garbage))
        except OSError:
            continue
    time.sleep(60)


def _connect(port: int) -> str:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError as error:
        return str(error)
    return "connected"


@job(isolate=True, network=False)
def connect_sealed(port: int, path: str) -> str:
    note(path, "written")
    return _connect(port)


@job(isolate=True)
def connect(port: int, path: str) -> str:
    note(path, "written")
    return _connect(port)


@job(isolate=True, reuse=10, network=lambda port, is_first: is_first)
def connect_first(port: int, is_first: bool) -> tuple[str, str, int]:
    before = _connect(port)
    current.leave_network()
    return before, _connect(port), os.getpid()


@job(timeout=60)
def load(folder: str, module: str) -> None:
    sys.path.insert(0, folder)
    importlib.import_module(module)


@job(isolate=True, timeout=60)
def load_isolated(folder: str, module: str) -> None:
    load(folder, module)
