"""What tests of schedulers share."""

from __future__ import annotations

import pytest

from packmule.coordination.locks.redlock import Redlock


@pytest.fixture(autouse=True)
def patient_elections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give lock nodes as long as a term allows: on a busy machine, a late one isn't away."""

    def patient(nodes: object, longest_ttl: float) -> Redlock:
        return Redlock(nodes, longest_ttl=longest_ttl, timeout=longest_ttl / 4)  # type: ignore[arg-type]

    monkeypatch.setattr("packmule.scheduler.leader.Redlock", patient)


@pytest.fixture(autouse=True)
def whole_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no duty run out of time, as it would on a busy machine."""
    for name in ("queue_scan", "repair", "batch_settler"):
        monkeypatch.setattr(f"packmule.scheduler.maintenance.{name}.LONGEST_ROUND", 60.0)
    monkeypatch.setattr("packmule.scheduler.maintenance.index_trimmer.LONGEST", 60.0)
    monkeypatch.setattr("packmule.scheduler.schedules.periodic_enqueuer.LONGEST_ROUND", 60.0)
