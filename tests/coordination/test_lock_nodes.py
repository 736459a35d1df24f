"""Lock nodes that are far away, whose clocks are set, or that other servers follow."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from redis import Redis

from packmule.coordination.locks.redlock import NotAcquired, Redlock
from packmule.coordination.redis.connection import lock_clients
from packmule.tests.coordination.test_connection import NOWHERE
from packmule.tests.network import network
from packmule.tests.pace import pace

FAR = 0.075
"""Seconds one way: a round trip of 150 ms, longer than the usual timeout."""


def until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def redlock(request):
    """A Redlock on URLs, with the timeouts that everybody gets."""

    def make(*urls: str, **options: float) -> Redlock:
        made = Redlock(lock_clients(urls, None, NOWHERE), **options)
        request.addfinalizer(made.close)
        return made

    return make


@pytest.mark.parametrize("count", [1, 3])
def test_far_nodes_grant_extend_and_release_locks(spare_server, redlock, count):
    with ExitStack() as stack:
        far = [stack.enter_context(network(spare_server(), FAR)) for _ in range(count)]
        locks = redlock(*(each.url for each in far), longest_ttl=3.0)
        until(lambda: not locks.faults())
        fences = []
        for _ in range(3):
            with locks.acquire("a", ttl=3.0, wait=20) as lock:
                fences.append(lock.fence)
                before = lock.until
                assert lock.extend() > before
        assert fences == sorted(set(fences))
        locks.close()
        with locks.acquire("a", ttl=3.0, wait=20):  # connects again
            pass


def test_nodes_that_move_away_are_given_more_time(spare_server, redlock):
    with network(spare_server()) as near:
        locks = redlock(near.url, longest_ttl=3.0)
        until(lambda: not locks.faults())
        locks.acquire("a", ttl=3.0, wait=20).release()
        near.delay = FAR
        locks.acquire("b", ttl=3.0, wait=20).release()
        locks.acquire("c", ttl=3.0, wait=20).release()


def test_a_far_or_dead_node_of_three_holds_nobody_up(spare_server, redlock):
    silent, near = spare_server(), [spare_server(), spare_server()]
    with network(silent) as dead:
        dead.silent.add(silent.socket_path)
        locks = redlock(dead.url, *(each.url for each in near), longest_ttl=3.0)
        locks.acquire("a", ttl=3.0, wait=10).release()
        began = time.monotonic()
        with pace() as second:
            for _ in range(20):
                locks.acquire("a", ttl=3.0, wait=10).release()
        # One attempt to reach the dead node may fall into these, of 40 ms; on a busy machine all take longer.
        assert time.monotonic() - began < 5 * second()
        until(lambda: locks.faults().keys() == {dead.url.removeprefix("redis://")})


@contextmanager
def set_back(server, uptime: int) -> Iterator[str]:
    """A way to `server` on which its uptime is another, as if its clock had been set; yields a URL."""

    def altered(reply: bytes) -> bytes:
        found = re.search(rb"uptime_in_seconds:\d+\r\nuptime_in_days:\d+", reply)
        if found is None:
            return reply
        text = b"uptime_in_seconds:%d\r\n" % uptime
        rest = len(found[0]) - len(text) - len(b":0")
        return reply.replace(found[0], text + b"x" * rest + b":0")

    def serve(near: socket.socket) -> None:
        with suppress(OSError), near, socket.socket(socket.AF_UNIX) as far:
            far.connect(str(server.socket_path))
            while asked := near.recv(65_536):
                far.sendall(asked)
                time.sleep(0.01)  # so that the whole reply is there
                near.sendall(altered(far.recv(2**20)))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                threads[-1].start()

    threads = [threading.Thread(target=accept)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads[0].start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        threads[0].join()
    for thread in threads[1:]:
        thread.join()


@pytest.mark.parametrize("uptime", [-3600, 0])
def test_a_clock_that_was_set_back_takes_a_nodes_vote_for_the_longest_ttl_at_most(
    spare_server, redlock, uptime
):
    with set_back(spare_server(), uptime) as url:
        locks = redlock(url, longest_ttl=1.0, timeout=0.5)
        until(lambda: "votes in 1 s" in str(locks.faults()) or "votes in 0 s" in str(locks.faults()))
        locks.close()
        until(lambda: not locks.faults())
        locks.close()
        assert "votes in" not in str(locks.faults())  # it is still the same run of the same server
        locks.acquire("a", ttl=1.0, wait=20).release()
        locks.close()


def test_an_uptime_of_whole_seconds_gives_no_node_its_vote_too_early(spare_server, redlock):
    with set_back(spare_server(), 1) as url:  # a server that started just before the clock's second ended
        locks = redlock(url, longest_ttl=600, timeout=0.5)
        began = time.monotonic()
        until(lambda: "votes in" in str(locks.faults()))
        (node,) = locks._quorum.nodes
        assert node.votes_at >= began + 600
        locks.close()


def test_a_lock_that_a_clock_set_back_has_prolonged_ends_after_the_longest_ttl(spare_server, redlock):
    server = spare_server()
    locks = redlock(server.url, longest_ttl=4.0, timeout=1.0)
    until(lambda: not locks.faults())
    with Redis.from_url(server.url) as client:
        client.set("pm:lock:a", "a dead holder", px=3_600_000)
        client.set("pm:lock:b", "a living one", px=3_900)
        with pytest.raises(NotAcquired):
            locks.acquire("b", ttl=4.0, wait=0)
        assert client.pttl("pm:lock:b") <= 3_900
        locks.acquire("a", ttl=4.0, wait=60).release()


def test_a_replica_has_no_vote(pair, redlock):
    pair.name.target = pair.second.socket_path
    locks = redlock(pair.name.url, longest_ttl=0.5)
    until(lambda: "it is a read-only replica" in str(locks.faults()))
    with Redis.from_url(pair.second.url) as second:
        second.replicaof("NO", "ONE")
    until(lambda: not locks.faults())
