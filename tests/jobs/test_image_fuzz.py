"""Damaged images; `python tests/jobs/image_fuzz.py` does the same with thousands."""

from __future__ import annotations

from packmule.tests.jobs.image_fuzz import fuzz, sources


def test_a_damaged_image_ends_whole_or_in_one_plain_line():
    outcomes = fuzz(12, 1, lambda line: None)
    assert outcomes.total() == 12 * len(sources())
    assert outcomes["made"] > 20
    assert outcomes["UnreadableImage"] > 20
