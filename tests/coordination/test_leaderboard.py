"""Hourly leaderboards, and mergeable histograms."""

from __future__ import annotations

import random

import pytest

from packmule.coordination.counters.histogram import LAST_BUCKET, bucket, merged, percentile, upper_bound
from packmule.coordination.counters.leaderboard import Leaderboard


def test_scores_add_up_over_hours(client):
    board = Leaderboard(client, "sellers")
    board.add("ada", 10)
    board.add("bob", 5)
    board.add("ada", 1.5)
    (key,) = client.keys("pm:top:sellers:*")
    assert 8 * 86_400 - 5 < client.ttl(key) <= 8 * 86_400
    before = board.key(int(key.rpartition(b":")[2]) - 1)
    client.zadd(before, {"bob": 20})
    assert board.top() == [("ada", 11.5), ("bob", 5.0)]
    assert board.top(1, hours=2) == [("bob", 25.0)]


def test_the_best_score_of_each_member_is_kept(client):
    board = Leaderboard(client, "laps")
    for score in (3, 7, 5):
        board.best("ada", score)
    client.zadd(board.key(int(client.keys("pm:top:laps:*")[0].rpartition(b":")[2]) - 1), {"ada": 6, "bob": 9})
    assert board.top_best(hours=2) == [("bob", 9.0), ("ada", 7.0)]


def test_a_leaderboard_keeps_no_more_than_its_size(client):
    board = Leaderboard(client, "small", size=3)
    for number in range(10):
        board.add(f"m{number}", number)
    assert board.top() == [("m9", 9.0), ("m8", 8.0), ("m7", 7.0)]
    with pytest.raises(ValueError, match="size=0"):
        Leaderboard(client, "none", size=0)


def test_percentiles_are_within_ten_percent():
    dice = random.Random(1)
    durations = sorted(dice.lognormvariate(-4, 2) for _ in range(10_000))
    counts: dict[int, int] = {}
    for each in durations:
        counts[bucket(each)] = counts.get(bucket(each), 0) + 1
    for share in (0.01, 0.5, 0.95, 0.99):
        assert percentile(counts, share) == pytest.approx(durations[int(share * 10_000) - 1], rel=0.11)


def test_histograms_add_up_and_odd_durations_have_a_bucket():
    assert merged([{1: 2, 3: 1}, {1: 1}]) == {1: 3, 3: 1}
    assert percentile({}, 0.5) is None
    assert (bucket(0), bucket(-5), bucket(1e99)) == (0, 0, LAST_BUCKET)
    assert all(upper_bound(bucket(each)) >= each for each in (0.000_001, 0.001, 0.5, 3600))
