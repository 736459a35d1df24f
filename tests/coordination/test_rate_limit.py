"""Rate limits: exact with any number of processes, on the server's clock, with keys that expire."""

from __future__ import annotations

import multiprocessing
import random
import re
import time
from dataclasses import dataclass

import pytest

from packmule.coordination.keys import KeyTaken
from packmule.coordination.limits.rate import Rate
from packmule.coordination.limits.rate_limit import RateLimitExceeded, SlidingWindow, TokenBucket
from packmule.coordination.redis.connection import connect

KINDS = [TokenBucket, SlidingWindow]
PROCESSES = 6


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def test_exactly_the_rate_is_allowed(client, kind):
    limit = kind(client, "logins", "3/m")
    answers = [limit.hit("ada") for _ in range(5)]
    assert [answer.allowed for answer in answers] == [True, True, True, False, False]
    assert [answer.remaining for answer in answers] == [2, 1, 0, 0, 0]
    assert [answer.retry_after for answer in answers[:3]] == [0.0] * 3
    interval = 20 if kind is TokenBucket else 60
    assert interval - 5 < answers[4].retry_after < answers[3].retry_after <= interval
    assert 55 < answers[2].reset_after <= 60


def test_each_key_and_each_name_is_limited_separately(client, kind):
    limit, other = kind(client, "logins", "1/m"), kind(client, "tokens", "1/m")
    assert limit.hit("ada").allowed
    assert limit.hit("bob").allowed
    assert other.hit("ada").allowed
    assert not limit.hit("ada").allowed


def test_a_refused_call_counts_nothing(client, kind):
    limit = kind(client, "logins", "2/6s")
    for _ in range(2):
        limit.hit("ada")
    refused = [limit.hit("ada") for _ in range(10)]
    assert refused[-1].reset_after < refused[0].reset_after < 6
    time.sleep(refused[-1].retry_after)
    assert limit.hit("ada").allowed


def test_a_call_is_allowed_after_retry_after_and_not_before(client, kind):
    limit = kind(client, "logins", "20/4s")
    limit.hit("ada", 20)
    asked_at = time.monotonic()
    refused = limit.hit("ada", 14)
    assert not refused.allowed
    while not limit.hit("ada", 14).allowed:
        assert time.monotonic() < asked_at + refused.retry_after + 30
    assert time.monotonic() - asked_at > refused.retry_after


def test_a_cost_counts_as_that_many_events(client, kind):
    limit = kind(client, "api", "10/h")
    assert limit.hit("ada", 7).remaining == 3
    assert not limit.hit("ada", 4).allowed
    assert limit.hit("ada", 3).remaining == 0


@pytest.mark.parametrize("cost", [0, -1, 11, 1.0, True, "1", None, 10**30, float("nan")])
def test_a_cost_that_can_never_be_allowed_is_refused(client, kind, cost):
    limit = kind(client, "api", "10/h")
    with pytest.raises(ValueError, match="whole numbers from 1 to 10"):
        limit.hit("ada", cost)
    assert not client.keys("*")


def test_peek_answers_like_hit_and_counts_nothing(client, kind):
    limit = kind(client, "api", "2/h")
    assert limit.peek("ada") == (True, 2, 0.0, 0.0)
    assert not client.keys("*")
    limit.hit("ada")
    assert [limit.peek("ada").remaining for _ in range(5)] == [1] * 5
    assert not limit.peek("ada", 2).allowed
    limit.hit("ada")
    assert limit.peek("ada").retry_after > 1000


def test_reset_forgets_all_events(client, kind):
    limit = kind(client, "api", "1/h")
    limit.hit("ada")
    limit.reset("ada")
    limit.reset("bob")
    assert limit.hit("ada").allowed


def test_require_raises_with_retry_after(client, kind):
    limit = kind(client, "api", "1/m")
    assert limit.require("ada").allowed
    with pytest.raises(RateLimitExceeded, match=r"ada is limited to 1/m: try again in \S+ s") as refused:
        limit.require("ada")
    assert 50 < refused.value.retry_after <= 60
    assert refused.value.key == "ada"
    assert refused.value.rate == Rate(1, 60.0)


@pytest.mark.parametrize("key", ["", "a b", "größer", "\ud800", "x" * 10**6, "a:b", "\r\nDEL", "\x00"])
def test_any_text_can_be_a_key(client, kind, key):
    limit = kind(client, "api", "1/m")
    assert limit.hit(key).allowed
    assert not limit.hit(key).allowed


def test_the_clients_clock_does_not_matter(client, kind, monkeypatch):
    limit = kind(client, "api", "1/m")
    limit.hit("ada")
    for clock in ("time", "time_ns", "monotonic", "monotonic_ns"):
        monkeypatch.setattr(time, clock, lambda: 10**10)
    assert not limit.hit("ada").allowed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda client, key: client.hset(key, "a", 1),
        lambda client, key: client.set(key, "no number"),
        lambda client, key: client.set(key, "nan"),
        lambda client, key: client.set(key, "-5"),
        lambda client, key: client.rpush(key, "no number"),
        lambda client, key: client.zadd(key, {"a": 1}),
    ],
)
def test_a_key_with_a_foreign_value_is_named_and_left_alone(client, kind, spoil):
    limit = kind(client, "api", "5/m")
    key = limit.key("ada")
    spoil(client, key)
    before = client.dump(key)
    with pytest.raises(KeyTaken, match=rf"{key} holds a value that is not a {kind.__name__}: delete it"):
        limit.hit("ada")
    assert client.dump(key) == before
    limit.reset("ada")
    assert limit.hit("ada").allowed


def test_every_key_expires(client, kind):
    limit = kind(client, "api", "10/s")
    for number in range(20):
        limit.hit(f"key {number}", number % 10 + 1)
        assert client.pttl(limit.key(f"key {number}")) in {-2, *range(1002)}  # -1 would be forever
    ends = time.monotonic() + 60
    while client.keys("*"):
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_bucket_is_exact_to_the_microsecond(client):
    limit = TokenBucket(client, "api", "7/m")
    answers = [limit.hit("ada") for _ in range(7)]
    full_at = int(client.get(limit.key("ada")))
    seconds, microseconds = client.time()
    assert (
        0 <= seconds * 1_000_000 + microseconds + round(answers[-1].reset_after * 1e6) - full_at < 5_000_000
    )


def test_a_window_holds_no_more_than_its_limit(client):
    limit = SlidingWindow(client, "api", "50/s")
    ends, chance = time.monotonic() + 2.5, random.Random(4)
    while time.monotonic() < ends:
        limit.hit("ada", chance.randint(1, 5))
        assert client.llen(limit.key("ada")) <= 50


@pytest.mark.parametrize("rate", ["10001/h", "1000000/s"])
def test_a_window_that_would_store_too_much_is_refused(client, rate):
    with pytest.raises(ValueError, match="use a TokenBucket"):
        SlidingWindow(client, "api", rate)


def test_a_window_with_a_burst_is_refused(client):
    with pytest.raises(ValueError, match="has no burst"):
        SlidingWindow(client, "api", "10/s burst 5")


def test_the_largest_window_is_filled_and_left_in_one_call_each(client):
    limit = SlidingWindow(client, "api", "10000/4s")
    assert limit.hit("ada", 10_000).remaining == 0
    assert not limit.hit("ada").allowed
    time.sleep(limit.peek("ada").retry_after)
    assert limit.hit("ada", 10_000).allowed


def test_a_lower_rate_applies_at_once(client, kind):
    kind(client, "api", "100/h").hit("ada", 100)
    lower = kind(client, "api", "10/h")
    refused = lower.hit("ada")
    assert not refused.allowed
    assert refused.remaining == 0
    assert refused.retry_after <= 3600


# The same scripts at chosen times, compared with exact models in Python.


@dataclass
class BucketModel:
    rate: Rate
    full_at: int = 0

    def hit(self, now: int, cost: int) -> tuple[int, int, int, int]:
        interval, capacity = self.rate.interval_us, self.rate.capacity_us
        full_at = min(max(self.full_at, now), now + capacity)
        wait = full_at + cost * interval - capacity - now
        if wait <= 0:
            full_at = self.full_at = full_at + cost * interval
        return (int(wait <= 0), (now + capacity - full_at) // interval, max(wait, 0), full_at - now)


class WindowModel:
    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.events: list[int] = []

    def hit(self, now: int, cost: int) -> tuple[int, int, int, int]:
        period = self.rate.period_us
        if self.events and self.events[-1] > now + period:
            self.events = []
        now = max([now, *self.events[-1:]])
        live = [event for event in self.events if event > now - period]
        if len(live) + cost > self.rate.limit:
            wait = live[len(live) + cost - self.rate.limit - 1] + period - now
            return 0, self.rate.limit - len(live), wait, live[-1] + period - now
        self.events = live + [now] * cost
        return 1, self.rate.limit - len(self.events), 0, period


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("text", ["7/m", "100/h burst 3", "1/d", "999/7d", "5000/s", "10000/100d"])
def test_the_scripts_agree_with_exact_models_at_any_instant(client, kind, text, seed):
    if kind is SlidingWindow:
        text = text.partition(" burst")[0]
    limit, rng = kind(client, "model", text), random.Random(seed)
    model = (BucketModel if kind is TokenBucket else WindowModel)(limit.rate)
    source, replaced = re.subn(r"redis\.call\('TIME'\)", "{ARGV[5], ARGV[6]}", limit._script.source)
    # These times don't pass on the server, so its keys must not expire.
    source, unending = re.subn(
        r"(, 'PX', math\.ceil\(.*?\)\)\n)|(redis\.call\('PEXPIRE'.*\n)",
        lambda found: ")\n" if found[1] else "",
        source,
    )
    assert (replaced, unending) == (1, 1)
    run = client.register_script(source)
    now = 1_700_000_000_000_000
    for _ in range(400):
        step = rng.choice([0, 1, limit.rate.interval_us, limit.rate.interval_us - 1, limit.rate.period_us])
        now += rng.choice([step, rng.randint(0, limit.rate.period_us), -rng.randint(0, step)])
        cost = rng.choice([1, 1, 1, rng.randint(1, limit.most)])
        arguments = [cost, *limit._numbers, "1", now // 1_000_000, now % 1_000_000]
        assert tuple(run([limit.key("a")], arguments)) == model.hit(now, cost)


def hits(kind, data_dir, rate, seconds, cost, start, sender) -> None:
    with connect(None, data_dir) as client:
        limit, found = kind(client, "race", rate), {True: [], False: []}
        start.wait()
        ends = time.time() + seconds
        while (before := time.time()) < ends:
            found[limit.hit("all", cost).allowed].append((before, time.time()))
        sender.send((found[True], found[False][::50]))


def race(server, kind, rate: str, seconds: float, cost: int = 1) -> tuple[list[tuple[float, float]], ...]:
    """Times before and after each call of many processes that call as fast as they can.

    First the calls that were allowed, in order, then some of the others.
    """
    forked = multiprocessing.get_context("fork")
    start, pipes, processes = forked.Barrier(PROCESSES), [], []
    for _ in range(PROCESSES):
        receiver, sender = forked.Pipe(duplex=False)
        pipes.append(receiver)
        arguments = (kind, server.data_dir, rate, seconds, cost, start, sender)
        processes.append(forked.Process(target=hits, args=arguments))
        processes[-1].start()
        sender.close()
    found = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return tuple(sorted(event for events in kind for event in events) for kind in zip(*found, strict=True))


def most_within(allowed, span: float) -> int:
    """The most events that certainly lay within any `span`, wherever between its two times each happened."""
    return max(
        sum(before >= first and after <= first + span for before, after in allowed) for first, _ in allowed
    )


@pytest.mark.parametrize("cost", [1, 3])
def test_no_span_of_a_period_ever_has_more_than_the_limit(server, client, cost):
    allowed, refused = race(server, SlidingWindow, "60/s", 3.5, cost)
    assert most_within(allowed, 1.0) * cost <= 60
    # Nor is it stricter: before each refusal, a period was used up.
    for asked, answered in refused:
        assert sum(before <= answered and after >= asked - 1 for before, after in allowed) * cost > 60 - cost
    assert refused


def test_a_bucket_allows_its_burst_and_then_the_rate_in_any_span(server, client):
    allowed, _ = race(server, TokenBucket, "100/s burst 10", 3.0)
    assert len(allowed) >= 150  # a busy machine leaves some unused
    for span in (0.01, 0.05, 0.1, 0.5, 1.0, 2.0):
        assert most_within(allowed, span) <= 10 + span * 100


def test_simultaneous_callers_get_exactly_the_burst(server, client):
    assert len(race(server, TokenBucket, "50/d", 2.0)[0]) == 50
