"""Paging: where a page of a bounded list begins, and its order, as an address says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from starlette.requests import Request

PAGE = 50
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


def bounded(
    rows: Sequence[Row], request: Request, weight: Callable[[Row], int], most: int, size: int = PAGE
) -> Shown:
    """One page of a whole list, as `page_of`, and shorter if its rows would weigh more than `most` together.

    >>> bounded(["a" * 40] * 9, request, len, 100).text  # doctest: +SKIP
    '1 to 2 of 9'
    """
    begin = min(offset(request), max(0, (len(rows) - 1) // size * size))
    shown = [*fitting(rows[begin : begin + size], weight, most)]
    end = begin + len(shown)
    text = f"{begin + 1:,} to {end:,} of {len(rows):,}" if len(rows) > len(shown) else ""
    return Shown(shown, str(end) if end < len(rows) else None, text)


def fitting(rows: Iterable[Row], weight: Callable[[Row], int], most: int) -> Iterator[Row]:
    """The first rows, at least one, that weigh no more than `most` together.

    >>> list(fitting(["aa", "bb", "cc"], len, 5))
    ['aa', 'bb']
    """
    total = 0
    for number, row in enumerate(rows):
        total += weight(row)
        if total > most and number:
            return
        yield row


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
