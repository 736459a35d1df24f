"""Pipelines of many files, while workers and pools are killed: complete or absent, and nothing left."""

from __future__ import annotations

import pytest

from packmule.tests.worker import pipeline_faults


def test_results_are_complete_or_absent_whatever_is_killed():
    report = pipeline_faults.run(kills=10, files=25, seconds=150)
    assert report.wrong == [], report
    assert report.ended["complete"] >= 23
    assert report.faults["worker killed"] > 0


def test_results_in_s3_are_complete_or_absent_whatever_is_killed(monkeypatch):
    pytest.importorskip("s3fs")
    for name in (*pipeline_faults.ENVIRONMENT, "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "")  # so that what the run sets is undone
    report = pipeline_faults.run(kills=8, files=12, seconds=150, is_far=True)
    assert report.wrong == [], report
    assert report.ended["complete"] >= 11
    assert report.faults["worker killed"] > 0
