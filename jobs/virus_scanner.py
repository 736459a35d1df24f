"""Where files are scanned for viruses; lent to jobs as a resource that costs nothing until then."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VirusScanner:
    """Where clamd listens: `tcp://host:3310` or `unix:///run/clamav/clamd.ctl`, or None if nothing scans."""

    url: str | None
