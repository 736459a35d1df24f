"""The scoreboard: what a reader sees while another process writes."""

from __future__ import annotations

from packmule.worker.scoreboard import MAIN, Scoreboard


def test_half_an_entry_is_no_job() -> None:
    board = Scoreboard()
    empty = bytes(board._memory)
    board.start(MAIN, "first", "one", 30)
    first = bytes(board._memory)
    board.start(MAIN, "a second one", "two", 0)
    second = bytes(board._memory)
    for before, after in ((empty, first), (first, second), (second, empty)):
        seen = set()
        for cut in range(len(after) + 1):
            for half in (after[:cut] + before[cut:], before[:cut] + after[cut:]):
                board._memory[:] = half
                job = board.read_one(MAIN)
                seen.add(job and (job.id, job.execution, round(job.deadline - job.started, 6)))
        assert seen <= {None, ("first", "one", 30.0), ("a second one", "two", float("inf"))}
    board.close()


def test_a_job_gets_more_time_and_never_less_and_a_stop_that_was_asked_for_stays() -> None:
    board = Scoreboard()
    board.start(MAIN, "first", "one", 30)
    before = board.read_one(MAIN)
    assert before is not None
    board.request_stop(before)
    board.prolong("two", 100)
    board.prolong("one", 10)
    same = board.read_one(MAIN)
    board.prolong("one", 100)
    after = board.read_one(MAIN)
    assert same == before._replace(stop_requested=True)
    assert after is not None
    assert 99 < after.deadline - before.deadline + 30 < 130
    assert after == same._replace(deadline=after.deadline)
    board.close()
