"""Paging: where a page of a bounded list begins, and its order, as an address says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response

PAGE = 50
MOST_BYTES = 45_000
"""Of a list, beside which its page has little else."""

LEAST = 3
"""Rows of a page that is not made smaller any more."""

FURTHEST = 1_000_000
LONGEST_TEXT = 200

Row = TypeVar("Row")


class Shown(NamedTuple):
    """The `rows` of one page, the cursor of the `next` one, and in words what they are of."""

    rows: Sequence[Any]
    next: str | None
    text: str


def offset(request: Request) -> int:
    """How many rows the pages before have: `?cursor=50`; 0 for what is no number.

    >>> offset(request)  # doctest: +SKIP
    50
    """
    text = request.query_params.get("cursor", "")
    return min(int(text), FURTHEST) if text.isascii() and text.isdecimal() and len(text) < 10 else 0  # noqa: PLR2004


def page_of(rows: Sequence[Row], request: Request, size: int = PAGE) -> Shown:
    """One page of a whole list; a page beyond its end is its last.

    >>> page_of(list(range(120)), request).text  # doctest: +SKIP
    '1 to 50 of 120'
    """
    begin = min(offset(request), max(0, (len(rows) - 1) // size * size))
    shown = rows[begin : begin + size]
    end = begin + len(shown)
    text = f"{begin + 1:,} to {end:,} of {len(rows):,}" if len(rows) > size else ""
    return Shown(shown, str(end) if end < len(rows) else None, text)


def small(make: Callable[[int], Response], most: int, *regions: str, size: int = PAGE) -> Response:
    """The page that `make` makes of `size` rows, or of fewer, so that each of the regions has `most` bytes.

    Rows are usually short, and a list has pages of the same size. Ids and texts of others may be long.

    >>> small(lambda size: render(request, "x.html", page=page_of(rows, request, size)), 40_000, "list")
    ... # doctest: +SKIP
    """
    while True:
        response = make(size)
        if size <= LEAST or all(_length(response.body, each) <= most for each in regions):
            return response
        size //= 2


def _length(body: bytes | memoryview, region: str) -> int:
    """The bytes of a region, up to the next one or the end of the page; 0 without it."""
    page = bytes(body)
    begin = page.find(f'data-region="{region}"'.encode())
    ends = [page.find(end, begin + 1) for end in (b"data-region=", b"</main>")] if begin >= 0 else []
    return min([end for end in ends if end >= 0], default=len(page)) - begin if begin >= 0 else 0


def order(
    request: Request, by: Mapping[str, Callable[[Any], Any]], usual: str
) -> tuple[str, Callable[[Any], Any], bool]:
    """The order that `?sort=-name` asks for, one of `by`: its text, its key, and whether the last come first.

    >>> order(request, {"name": lambda row: row.name}, "name")[0]  # doctest: +SKIP
    'name'
    """
    text = request.query_params.get("sort", usual)
    text = text if text.removeprefix("-") in by else usual
    return text, by[text.removeprefix("-")], text.startswith("-")


def asked(request: Request, name: str = "q") -> str:
    """What somebody looks for, `?q=`, bounded in length."""
    return request.query_params.get(name, "")[:LONGEST_TEXT].strip()


def choice(request: Request, name: str, among: Sequence[str]) -> str:
    """Which of some words the address names, else the first.

    >>> choice(request, "state", ("open", "all"))  # doctest: +SKIP
    'open'
    """
    found = request.query_params.get(name, "")
    return found if found in among else among[0]
