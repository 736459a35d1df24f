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
