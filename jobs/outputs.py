"""The files of a job: the paths in the storage that its result names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from packmule.jobs.reader import JobInfo
from packmule.jobs.storage import Storage

DEEPEST, LONGEST_PATH = 6, 1_000

INPUTS = ("source", "sources")
"""Names under which results tell what went in."""

LISTS = ("paths", "files")


def paths_of(info: JobInfo) -> list[str]:
    """The paths that the result of a job names under `path`, `..._path`, `paths` or `files`.

    >>> paths_of(replace(info, result={"path": "a.csv", "n": 1}))  # doctest: +SKIP
    ['a.csv']
    """
    found = _paths(info.result, 0) if info.status == "finished" else ()
    return [*dict.fromkeys(each for each in found if 0 < len(each) <= LONGEST_PATH)]


def files_of(info: JobInfo, storage: Storage) -> list[str]:
    """The paths of all files of a job; of a folder that its result names, of all that is in it.

    Those that are gone are among them. Raises `StorageError`.
    """
    found: dict[str, None] = {}
    for path in paths_of(info):
        inner = [] if path in found or storage.exists(path) else storage.names(f"{path}/")
        found.update(dict.fromkeys(inner or [path]))
    return list(found)


def _paths(value: Any, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in INPUTS:
                continue
            if isinstance(inner, str):
                if name == "path" or name.endswith("_path"):
                    yield inner
            elif name in LISTS and isinstance(inner, list):
                for each in inner:
                    yield from [each] if isinstance(each, str) else _paths(each, depth + 1)
            else:
                yield from _paths(inner, depth + 1)
    elif isinstance(value, list):
        for each in value:
            yield from _paths(each, depth + 1)
