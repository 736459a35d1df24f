"""Tracebacks for a reader: the frames of the author's own code, and the others together where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from packmule.jobs import wire

LONGEST = 200_000
"""Characters of a traceback that are looked at, the last ones."""

_FRAME = re.compile(r'\s*(?:\|\s*)*File "(?P<file>[^"\n]*)", line \d+(?:, in .*)?$')
_HEAD = re.compile(r"\s*(?:\|\s*)*(?:\+ )?(?:Exception Group )?Traceback \(most recent call last\):$")
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib(?:64)?/python3\.\d+/|^<frozen |^<string>")
_PACKMULE = f"{Path(__file__).parents[1]}/"


class Part(NamedTuple):
    """Lines of a traceback: a frame of the author's `own` code, some of `library` code, or other `text`."""

    kind: Literal["own", "library", "text"]
    text: str
    frames: int = 0


def parts(traceback: str) -> list[Part]:
    """The parts of a traceback in order; `frames` next to each other in libraries are one part.

    >>> [part.kind for part in parts(info.error)]  # doctest: +SKIP
    ['text', 'library', 'own', 'text']
    """
    found: list[Part] = []
    for part in _each(traceback[-LONGEST:].rstrip("\n")):
        last = found[-1] if found else part
        if found and part.kind == last.kind and part.kind != "own":
            found[-1] = Part(part.kind, f"{last.text}\n{part.text}", last.frames + part.frames)
        else:
            found.append(part)
    if any(part.kind == "own" for part in found):
        return found
    return [Part("text", part.text, part.frames) for part in found]  # a library's author looks at its own job


def without_values(traceback: str) -> str:
    """The frames of a traceback and the class of its error, for readers who may not see what jobs work on."""
    lines = traceback[-LONGEST:].split("\n")
    kept = [line for line in lines if _FRAME.match(line) or _HEAD.match(line)]
    kind = wire.error_type(wire.reason(traceback))
    return "\n".join([*kept, *([kind] if kind else [])])


def _each(text: str) -> Iterator[Part]:
    frame: list[str] = []
    is_own = False
    for line in text.split("\n"):
        found = _FRAME.match(line)
        # The source of a frame is indented further than the frame, and so are the marks below it.
        if frame and not found and line.startswith(_margin(frame[0]) + "  ") and line.strip():
            frame.append(line)
            continue
        if frame:
            yield Part("own" if is_own else "library", "\n".join(frame), 1)
            frame = []
        if found:
            frame, is_own = (
                [line],
                not (_LIBRARY.search(found["file"]) or found["file"].startswith(_PACKMULE)),
            )
        else:
            yield Part("text", line)
    if frame:
        yield Part("own" if is_own else "library", "\n".join(frame), 1)


def _margin(line: str) -> str:
    """What stands in front of a frame."""
    return line[: line.index("File ")]
