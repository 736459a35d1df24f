"""Folders of renditions, while workers, pools and commands are killed: whole or absent, nothing left."""

from __future__ import annotations

from packmule.tests.worker import image_faults


def test_a_folder_is_made_whole_whatever_is_killed():
    report = image_faults.run(kills=12, images=60, seconds=60)
    assert report.wrong == [], report
    assert report.whole == 180 * report.folders
    assert report.faults["worker killed"] > 0
