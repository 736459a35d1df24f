"""Places: where the renditions of each source go, so that no two sources ever write the same file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from packmule.jobs.image.batch.sources import folded
from packmule.jobs.image.encode import ENCODINGS

LONGEST_NAME = 100
"""Bytes of a rendition's name without its suffix."""

LONGEST_FOLDER = 150

_SUFFIXES = tuple(encoding.suffix for encoding in ENCODINGS.values())


def places(
    names: Iterable[str],
    labels: Sequence[str],
    known: Mapping[str, str] | None = None,
    occupied: Iterable[str] = (),
) -> dict[str, str]:
    """A place for each of the sources `names`: the folder and the beginning of its renditions' names.

    Each rendition is called `<place>-<label>` and a suffix. A place is that of the source, told apart by the
    source's suffix or a number where another source has it. Sources keep the places that are `known`. No
    rendition takes the place of the files `occupied`, whatever their suffixes.

    >>> places(["a/x.jpg", "a/x.png", "b/x.jpg"], ["800"])
    {'a/x.jpg': 'a/x', 'a/x.png': 'a/x-png', 'b/x.jpg': 'b/x'}
    """
    wished = {name: (known or {}).get(name) for name in names}
    room = LONGEST_NAME - max(len(label.encode()) for label in labels) - 1
    found: dict[str, str] = {}
    taken = {folded(_stem(name)) for name in occupied}
    for name in sorted(wished, key=lambda name: wished[name] is None):
        place = wished[name]
        if place is None or _is_taken(place, labels, taken):
            place = _free(PurePosixPath(name), labels, taken, room)
        found[name] = place
        taken.update(folded(f"{place}-{label}") for label in labels)
    return found


def _free(name: PurePosixPath, labels: Sequence[str], taken: set[str], room: int) -> str:
    folder = "".join(f"{_cut(part, LONGEST_FOLDER)}/" for part in name.parent.parts)
    place, number = folder + _cut(name.stem, room), 1
    while _is_taken(place, labels, taken):
        end = f"-{name.suffix[1:16]}" if number == 1 and name.suffix else f"-{number}"
        place = folder + _cut(name.stem, room - len(end.encode())) + end
        number += 1
    return place


def foreign(
    places: Iterable[str], labels: Sequence[str], ours: Iterable[str], there: Iterable[str]
) -> list[str]:
    """Which of the files that are `there` renditions at `places` would replace, though they are not `ours`.

    Suffixes don't count, since a rendition's may depend on its source.

    >>> foreign(["a/x"], ["800"], ["a/x-200"], ["a/x-800.png", "a/x-800.txt", "a/x-200.jpg"])
    ['a/x-800.png']
    """
    wanted = {folded(f"{place}-{label}") for place in places for label in labels}
    wanted -= {folded(each) for each in ours}
    return [name for name in there if name.lower().endswith(_SUFFIXES) and folded(_stem(name)) in wanted]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _is_taken(place: str, labels: Sequence[str], taken: set[str]) -> bool:
    return any(folded(f"{place}-{label}") in taken for label in labels)


def _cut(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore")
