"""The unpack job: makes plain files of an archive's members, within bounds, all or none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import PurePosixPath
from time import monotonic
from typing import Any, BinaryIO

from packmule.jobs import current
from packmule.jobs.files.reading import UnfitOption, is_encoding
from packmule.jobs.files.unpacking import tars, zips
from packmule.jobs.files.unpacking.bounds import ArchiveTooLarge, Bounds, UnfitBound
from packmule.jobs.files.unpacking.folder import LISTING, SHOWN, Folder, MembersRefused
from packmule.jobs.files.unpacking.members import Member, NotAnArchive
from packmule.jobs.files.unpacking.sevenzip import members as sevenzip
from packmule.jobs.files.unpacking.sevenzip.header import MARK
from packmule.jobs.files.unpacking.streams import NEW, BrokenArchive, decompressed, pieces_of
from packmule.jobs.files.unpacking.zips import ArchiveLocked
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.retention.made import check_place, new_place
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage, safe_name
from packmule.units import GIB

SUFFIXES = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}
MARKS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
HOPELESS = (
    ArchiveLocked, ArchiveTooLarge, BrokenArchive, MembersRefused, NotAnArchive, UnfitBound, UnfitOption,
    MissingFile, OutsideStorage, FileTooLarge,
)  # fmt: skip


@job(
    queue="low",
    timeout=3600,
    retries=1,
    give_up_on=HOPELESS,
    isolate=True,
    network=False,
    max_memory=2 * GIB,
    max_cpu=3600,
    check=check_place,
)
def unpack(
    source: str,
    out: str | None = None,
    *,
    skip: bool = False,
    encoding: str | None = None,
    max_members: int | None = None,
    max_bytes: int | None = None,
    max_ratio: int | None = None,
    max_depth: int | None = None,
    max_path: int | None = None,
    max_name: int | None = None,
) -> dict[str, Any]:
    """Unpack the stored archive `source`: ZIP, 7z, tar with any compression, or one compressed file.

    The members become files in the folder `out` (default: `unpacked/<job id>`), all of them or none. Its
    `members.jsonl` lists them: a member's `name`, its `path` in the folder, and `bytes`, or why it was
    `refused`. Names that only differ in case or accents' spelling are told apart: `photo-2.jpg`.

    A link, a device, a path that leads out of the folder, or any other member that can't be a plain file
    there fails the job, or with `skip` is left out. `encoding` is that of names that don't say it. The bounds
    that begin with `max_` may be lower than the settings'; `max_ratio` (200) may be up to 10,000.

    Returns where the files are, and the first 100 of each kind::

        {"source": "uploads/a.zip", "path": "unpacked/7f0c", "listing": "unpacked/7f0c/members.jsonl",
         "members": 2, "bytes": 48219, "paths": ["unpacked/7f0c/a.csv", "unpacked/7f0c/b/c.pdf"],
         "refused": [{"name": "b/link", "reason": "it is a link"}], "seconds": 0.1}

    Raises `NotAnArchive`, `BrokenArchive`, `ArchiveTooLarge`, `ArchiveLocked`, `MembersRefused`,
    `UnfitBound`, `UnfitOption`, `MissingFile` or `FileTooLarge`; then nothing is written.

    >>> unpack.enqueue("uploads/a.zip", skip=True)  # doctest: +SKIP
    """
    started = monotonic()
    storage, limits = current.resource(Storage), current.resource(InputLimits)
    bounds = Bounds.of(
        limits,
        {
            "members": max_members,
            "bytes": max_bytes,
            "ratio": max_ratio,
            "depth": max_depth,
            "path": max_path,
            "name": max_name,
        },
    )
    if encoding is not None and not is_encoding(encoding):
        raise UnfitOption(
            f"{source}: encoding can't be {encoding[:40]!r}: use one such as cp437 or shift_jis"
        )
    with storage.read(source, limits.file_bytes) as file, file.open("rb") as content:
        folder = (out or new_place("unpacked", file)).rstrip("/")
        with storage.write_folder(folder, LISTING) as target:
            made = Folder(source, target, bounds, content)
            for member in _members(source, content, bounds, encoding):
                made.add(member)
            made.finish(skip)
    return {
        "source": source,
        "path": folder,
        "listing": f"{folder}/{LISTING}",
        "members": len(made.paths),
        "bytes": made.bytes,
        "paths": [f"{folder}/{path}" for path in made.paths[:SHOWN]],
        "refused": made.refused[:SHOWN],
        "seconds": round(monotonic() - started, 3),
    }


def _members(source: str, content: BinaryIO, bounds: Bounds, encoding: str | None) -> Iterator[Member]:
    """The members of an archive of whatever kind its first bytes tell."""
    head = content.read(tars.BLOCK)
    content.seek(0)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return zips.members(source, content, bounds, encoding)
    if head.startswith(MARK):
        return sevenzip.members(source, content, bounds)
    method = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
    pieces = pieces_of(content.read)
    if method is not None:
        pieces = decompressed(source, pieces, NEW[method])
        first = b""
        while len(first) < tars.BLOCK and (piece := next(pieces, b"")):
            first += piece
        head, pieces = first[: tars.BLOCK], chain([first], pieces)
    if tars.is_header(head):
        return tars.members(source, pieces, encoding)
    if method is None:
        raise NotAnArchive(
            f"{source} is not an archive: give ZIP, 7z, tar, or a file in gzip, bzip2, xz or Zstandard"
        )
    name = PurePosixPath(source).name
    stem = name[: -len(PurePosixPath(name).suffix)] if name.lower().endswith(SUFFIXES[method]) else name
    return iter([Member(safe_name(stem), pieces)])
