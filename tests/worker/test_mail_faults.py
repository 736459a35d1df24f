"""Mails, while workers, pools and Redis are killed: each arrives once, or is known as unknown."""

from __future__ import annotations

from packmule.tests.worker import mail_faults


def test_each_recipient_gets_one_mail_or_is_unknown_whatever_is_killed():
    report = mail_faults.run(kills=12, recipients=600, seconds=60)
    assert report.wrong == []
    assert report.bulk["accepted"] + report.bulk["unknown"] == 600
    assert report.bulk["unknown"] <= 2 * sum(report.faults.values())
    assert report.singles["accepted"] > 0
