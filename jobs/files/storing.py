"""The table of a stored file, converted into a stored file, or into a folder of partitions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import Any

from packmule.jobs import current
from packmule.jobs.files.arrow import ArrowRefused
from packmule.jobs.files.compressed import BrokenCompression, unpacked
from packmule.jobs.files.convert import ConversionFailed, EmptyFile, NotATable, convert, working
from packmule.jobs.files.excel import WorkbookRefused
from packmule.jobs.files.faults import explained
from packmule.jobs.files.inspection import listed
from packmule.jobs.files.json_columns import UnfitKey
from packmule.jobs.files.jsontext import BrokenJson
from packmule.jobs.files.reading import Reading, UnfitOption
from packmule.jobs.files.refusals import Refusals, TooManyRefused
from packmule.jobs.files.signatures import kind_of
from packmule.jobs.files.table import MismatchedColumns, TooWide
from packmule.jobs.files.text import UnreadableText
from packmule.jobs.files.writing.contract import Contract, UnfitSchema, parsed
from packmule.jobs.files.writing.copies import CountMismatch
from packmule.jobs.files.writing.output import COMPRESSIONS, Output, UnfitOutput
from packmule.jobs.job_type import JobSettings
from packmule.jobs.retention.made import new_place
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage
from packmule.units import GIB, MIB

MANIFEST = "manifest.json"
"""The last file of a folder of partitions: where it is, all of them are."""
HOPELESS = (
    ArrowRefused, BrokenCompression, BrokenJson, ConversionFailed, CountMismatch, EmptyFile,
    MismatchedColumns, NotATable, TooManyRefused, TooWide, UnfitKey, UnfitOption, UnfitOutput, UnfitSchema,
    UnreadableText, WorkbookRefused, MissingFile, OutsideStorage, FileTooLarge,
)  # fmt: skip
"""What another try to read a table, or to convert it, ends with, too."""
OF_TABLES = JobSettings(
    queue="low",
    timeout=3600,
    retries=1,
    give_up_on=HOPELESS,
    isolate=True,
    network=False,
    max_memory=8 * GIB,
    max_cpu=14_400,
)
"""The settings of jobs that read a table; these seconds of processors are for all its threads together."""
MAX_SCHEMA = 4 * MIB
LONGEST_STEM = 150
"""Bytes of the name of an output that no caller names."""
PACKED = frozenset({*COMPRESSIONS, ".bz2", ".xz"})


@contextmanager
def reading(storage: Storage, source: str, most: int) -> Iterator[Path]:
    """The content of `source`, with the storage named if it isn't there: it may be in another.

    What the system refuses meanwhile becomes an error about `source`.
    """
    with ExitStack() as closing:
        try:
            content = closing.enter_context(storage.read(source, most))
        except MissingFile as error:
            raise MissingFile(
                f"{error} in this worker's storage ({storage.locate(source)}): "
                "give all hosts the same PACKMULE_STORAGE"
            ) from None
        with explained(source, content, storage.locate(source)):
            yield content


def default_path(folder: str, source: str, content: Path) -> str:
    """A path named after the job, or in its place the content, without a suffix."""
    return f"{new_place(folder, content)}/{stem_of(source)}"


def stem_of(source: str) -> str:
    """What is called after `source`, without a suffix.

    >>> stem_of("uploads/7f0c/orders.csv.gz")
    'orders'
    """
    name = PurePosixPath(source)
    stem = (PurePosixPath(name.stem) if name.suffix.lower() in PACKED else name).stem
    return stem.encode()[:LONGEST_STEM].decode(errors="ignore")


def contract_of(
    storage: Storage, source: str, schema: str | dict[str, str] | None, widen: bool
) -> Contract | None:
    """The schema that the output of `source` is to keep to: a mapping, or the path of a stored file.

    Raises `UnfitSchema`, `MismatchedColumns` and `MissingFile`.
    """
    if isinstance(schema, str):
        schema = parsed(schema, storage.read_bytes(schema, MAX_SCHEMA))
    return Contract(source, schema, widen) if schema is not None else None


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to convert: the `content` of the stored file `source`; how to read it, and how to write it.

    It unpacks to at most `most_bytes`, and at most `most_refused` rows may be refused.
    """

    storage: Storage
    source: str
    content: Path
    reading: Reading
    output: Output
    contract: Contract | None
    most_bytes: int
    most_refused: int | None

    def stored(self, path: str) -> dict[str, Any]:
        """The facts about what was written at `path`, as the result has them."""
        started = monotonic()
        refused_path = f"{path}.refused.jsonl"
        with ExitStack() as closing:
            work = closing.enter_context(working(self.source, self.content, self.reading, percent))
            work = unpacked(work, self.most_bytes)
            if self.output.partition_by:
                target = closing.enter_context(self.storage.write_folder(path, MANIFEST))
            else:
                target = closing.enter_context(self.storage.write(path))
            with Refusals(self.source, work.folder / "refused", self.most_refused) as refusals:
                done = convert(work, kind_of(work.file), target, refusals, self.output, self.contract)
            columns = listed(done.columns)
            if self.output.partition_by:
                facts = _listed_files(target, done.rows, columns)
            else:
                facts = {"bytes": target.stat().st_size}
            # Written first, so that the output never exists without it; an older run's report is replaced.
            if refusals.count or self.storage.exists(refused_path):
                with self.storage.write(refused_path) as report:
                    shutil.copyfile(refusals.file, report)
        current.progress(100, 100, "converted")
        return {
            "source": self.source,
            "path": path,
            "format": self.output.format,
            "rows": done.rows,
            "refused": refusals.count,
            "refusals": refusals.first,
            **({"refused_path": refused_path} if refusals.count else {}),
            **done.origin,
            "warnings": [*done.warnings],
            "columns": columns,
            **facts,
            "seconds": round(monotonic() - started, 3),
        }


def percent(done: float, message: str) -> None:
    """Report the progress of the job."""
    current.progress(done, 100, message)


def _listed_files(folder: Path, rows: int, columns: list[dict[str, str]]) -> dict[str, Any]:
    """List the partitions in the folder's manifest; how many files and bytes there are."""
    files = [
        {"path": each.relative_to(folder).as_posix(), "bytes": each.stat().st_size}
        for each in sorted(folder.rglob("*"))
        if each.is_file()
    ]
    manifest = {"files": files, "rows": rows, "columns": columns}
    (folder / MANIFEST).write_text(
        json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    return {"files": len(files), "bytes": sum(each["bytes"] for each in files), "manifest": MANIFEST}
