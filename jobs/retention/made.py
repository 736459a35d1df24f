"""What jobs have made: the folders of the storage that they write to, and what goes in one piece."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from packmule.jobs import current
from packmule.jobs.storage import OutsideStorage, StoredFile, checked
from packmule.jobs.storage.store import sha256_of

MADE = ("converted", "fetched", "profiles", "renditions", "results", "texts", "unpacked")
UPLOADS = "uploads"
ELSEWHERE = "renditions/served/"
"""What the jobs of served images prune themselves."""

_DEPTHS = {"results": 4}
"""How many names a path has in front of what a job made: `results/<pipeline>/<source>/<flow>`, else two."""


@dataclass
class Made:
    """The files of one job, in the folder `path`, or a single file of that path."""

    path: str
    is_folder: bool = True
    files: int = 0
    bytes: int = 0
    written_at: float = 0.0
    """When the newest of them was written."""
    names: list[str] = field(default_factory=list)

    def add(self, file: StoredFile) -> None:
        """Count one of its files."""
        self.files += 1
        self.bytes += file.bytes or 0
        self.written_at = max(self.written_at, file.written_at or float("inf"))
        self.names.append(file.path)


def new_place(folder: str, content: Path) -> str:
    """Where the running job puts what it makes of `content`, the same at each attempt: in a folder of its id.

    Without a job, the folder is named after the content.
    """
    return f"{folder}/{current.job_id() or sha256_of(content)[:16]}"


def check_place(source: str, out: str | None = None, **others: object) -> None:
    """Refuse a call whose `out` is no place in the storage. Raises `ValueError`."""
    try:
        checked((out or "x").rstrip("/"))
    except OutsideStorage as error:
        raise ValueError(str(error)) from None


def place_of(path: str) -> str:
    """The folder with all that was made together with `path`; the path itself if that is in none.

    >>> place_of("converted/7f0c/a.parquet"), place_of("results/intake/a.csv/7f0c/table/a.parquet")
    ('converted/7f0c', 'results/intake/a.csv/7f0c')
    """
    parts = path.split("/")
    return "/".join(parts[: _DEPTHS.get(parts[0], 2)])


def gather(files: Iterable[StoredFile]) -> list[Made]:
    """What files were made together, the oldest first."""
    found: dict[str, Made] = {}
    for each in files:
        if not each.path.startswith(ELSEWHERE):
            place = place_of(each.path)
            found.setdefault(place, Made(place, place != each.path)).add(each)
    return sorted(found.values(), key=lambda made: (made.written_at, made.path))
