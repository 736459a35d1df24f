"""Failures: what an attempt failed of, and the fingerprint that those of the same cause have in common."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import CodeType

import msgspec
from rq.timeouts import JobTimeoutException

from packmule.jobs import wire
from packmule.jobs.interrupts import Killed

MOST_FRAMES = 5
"""Frames of a traceback that count, the innermost first."""

LONGEST_TEXT, LONGEST_NAME = 200, 200
"""Characters of an error's text, of which only the first line counts, and of a name."""

LONGEST_EXAMPLE = 8 * 1024
"""Bytes of a traceback, compressed and in base64, that are kept as an example; `errors.lua` has it too."""

_CUT_EXAMPLE = 6000

_ANYWHERE = (JobTimeoutException, Killed)
"""Errors that the worker raises wherever the job is: their frames say nothing of the cause."""

_VARIABLE = re.compile(
    r"""(?<!\w)'[^']*'(?!\w)|(?<!\w)"[^"]*"(?!\w)"""  # quoted values
    r"|\S*[@/\\]\S*"  # addresses and paths
    r"|\b[0-9a-fA-F-]{16,}\b"  # ids
    r"|\w*\d(?:[\w.,:-]*\w)?"  # numbers, times, and names with digits
)

_PERFORMING = f"{Path(__file__).parent}{os.sep}"
_LIBRARIES = (
    f"{Path(__file__).parents[2]}{os.sep}",
    *(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")),
    "<frozen ",
)
_INSTALLED = ("site-packages", "dist-packages")


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why an attempt failed, in the form that `errors.lua` counts.

    Failures with the same `fingerprint` are one error. `type` is the error's class without its module, `text`
    the first line of what it says, `where` the innermost function of the job's own code, and `job` the dotted
    name of the job's callable. `example` is the end of the traceback if the whole is too long to be kept.
    """

    fingerprint: str
    type: str
    text: str
    where: str
    job: str
    example: str = ""


def failure_of(error: BaseException, job: str) -> Failure:
    """The failure of an attempt of `job`, the dotted name of a callable, that `error` ended. It never raises.

    The fingerprint is made of the job, the error's class, the frames of the job's own code (function and
    file, no line), and the text without what differs from time to time. If no frame is of the job's own code,
    those of libraries count. A group of errors is known by its first one.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    kind = type(error)
    frames = tuple(_frames(_codes(error)))
    where = frames[0] if frames else ""
    cause = () if isinstance(error, _ANYWHERE) else frames
    return _failure(kind.__qualname__, _text(error), where, job, (kind.__module__, *cause))


def plain_failure(kind: str, text: str, job: str) -> Failure:
    """The failure of an attempt of `job` that no error ended."""
    return _failure(kind, _first_line(text), "", job, ())


def name_of(data: bytes) -> str:
    """The dotted name of the callable in a job's payload."""
    try:
        return wire.decode_call(data).name
    except wire.InvalidPayload:
        return "(unreadable)"


def with_example(failure: Failure, text: str, kept: str) -> Failure:
    """`failure` with the end of its traceback `text` if the whole, as `kept` in a result, is too long."""
    if len(kept) <= LONGEST_EXAMPLE:
        return failure
    end = text.encode("utf-8", "backslashreplace")[-_CUT_EXAMPLE:].decode(errors="ignore")
    return msgspec.structs.replace(failure, example=wire.error_text(f"...\n{end}"))


def trace(error: BaseException) -> str:
    """The traceback without our frames: those that led into the job, and those that interrupted it."""
    whole = traceback.TracebackException.from_exception(error)
    parts: list[traceback.TracebackException | None] = [whole]
    for part in parts:
        if part is not None:
            part.stack[:] = [frame for frame in part.stack if not frame.filename.startswith(_PERFORMING)]
            parts += part.__cause__, part.__context__, *(part.exceptions or ())
    return "".join(whole.format()) if whole.stack else "".join(whole.format_exception_only())


def _failure(kind: str, text: str, where: str, job: str, cause: Sequence[str]) -> Failure:
    parts = (job, kind, *cause, _VARIABLE.sub("#", text))
    fingerprint = blake2b("\n".join(parts).encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()
    return Failure(
        fingerprint, _valid(kind, LONGEST_NAME), _valid(text, LONGEST_TEXT), where, _valid(job, LONGEST_NAME)
    )


def _text(error: BaseException) -> str:
    try:
        return _first_line(str(error))
    except Exception:  # of a __str__ that somebody wrote
        return ""


def _first_line(text: str) -> str:
    lines = text[: 10 * LONGEST_TEXT].strip().splitlines()
    return lines[0][:LONGEST_TEXT] if lines else ""


def _codes(error: BaseException) -> list[CodeType]:
    """What the job's own functions were doing, or else those of libraries, the innermost first."""
    own: list[CodeType] = []
    others: list[CodeType] = []
    at = error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        if _is_own(code.co_filename):
            own.append(code)
        elif not code.co_filename.startswith(_PERFORMING):
            others.append(code)
        at = at.tb_next
    return (own or others)[::-1]


@lru_cache(maxsize=4096)
def _is_own(path: str) -> bool:
    return not path.startswith(_LIBRARIES) and not any(name in path for name in _INSTALLED)


def _frames(codes: Sequence[CodeType]) -> Iterator[str]:
    """The first of these functions, each once: a recursion may be deeper the next time."""
    seen: set[CodeType] = set()
    for code in codes:
        if code not in seen:
            seen.add(code)
            yield _frame(code)
        if len(seen) == MOST_FRAMES:
            return


@lru_cache(maxsize=4096)
def _frame(code: CodeType) -> str:
    frame = f"{Path(code.co_filename).name}:{code.co_qualname}"
    return _valid(re.sub(r"\d+", "#", frame), LONGEST_NAME)


def _valid(text: str, most: int) -> str:
    """Up to `most` characters that UTF-8 can hold."""
    return text[:most].encode("utf-8", "backslashreplace").decode()
