"""What a drill says: a line while it runs, and tables or JSON at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import Progress, TextColumn, TimeElapsedColumn

from terminal import show
from terminal.drill_ledger import LIMITS, Verdict, percentile


def report(
    verdict: Verdict, faults: Counter[str], seconds: float, seed: int, evidence: Path | None, as_json: bool
) -> None:
    """Print what the drill has shown, and where its evidence is if it was kept."""
    counts = {
        "acknowledged": verdict.acknowledged,
        "completed": verdict.completed,
        "lost": len(verdict.lost),
        "stuck": len(verdict.stuck),
        "failed": len(verdict.failed),
        "failed by a third death": len(verdict.gave_up),
        "wrongly recorded": len(verdict.misrecorded),
        "in flight at a fault": verdict.in_flight,
        "duplicated": len(verdict.duplicated),
        "duplicated for no reason": len(verdict.excess),
    }
    recovery = {
        name: {"jobs": len(spans), **{f"p{p}": percentile(spans, p) for p in (50, 99)}, "max": max(spans)}
        for name, spans in verdict.recoveries.items()
        if spans
    }
    if as_json:
        facts: dict[str, Any] = {name.replace(" ", "_"): count for name, count in counts.items()}
        facts |= {"faults": faults, "recovery": recovery, "seconds": seconds, "seed": seed}
        show.as_json({**facts, "broken": verdict.broken, "evidence": str(evidence) if evidence else None})
        return
    rows = [(name, f"{count:,}") for name, count in counts.items()]
    show.table(("jobs", ""), rows, "")
    show.out.print()
    show.table(("fault", "times"), sorted(faults.items()), "no faults")
    show.out.print()
    show.table(
        ("jobs ran again after", "jobs", "p50", "p99", "max", "promised"),
        [
            (
                name,
                row["jobs"],
                *(f"{row[column]:.2f} s" for column in ("p50", "p99", "max")),
                f"{LIMITS[name]:g} s",
            )
            for name, row in recovery.items()
        ],
        "no job was interrupted",
    )
    show.out.print()
    for sentence in verdict.broken:
        show.out.print(f"broken: {sentence}", markup=False)
    kept = f"A promise was broken: see {evidence}" if evidence else "Every promise was kept"
    show.out.print(f"{kept} ({seconds:.0f} s, --seed {seed}).", markup=False)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A line on standard error, and only on a terminal, that changes as it is told."""
    columns = (TextColumn("drill"), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=show.err, disable=not show.err.is_terminal, transient=True) as bars:
        task = bars.add_task("")
        yield lambda text: bars.update(task, description=text)
