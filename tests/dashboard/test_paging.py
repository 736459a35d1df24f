"""Pages of bounded lists: where they begin, and how many rows they have."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse

from packmule.dashboard.pages import paging
from packmule.dashboard.pages.paging import page_of, small


def asking(query: str = "") -> Request:
    return Request({"type": "http", "path": "/", "query_string": query.encode(), "headers": []})


def made(rows: list[str], sizes: list[int]) -> object:
    def make(size: int) -> HTMLResponse:
        sizes.append(size)
        shown = "".join(rows[:size])
        regions = {"top": "t" * 99, "list": shown, "end": "e" * 999}
        body = "".join(f'<section data-region="{name}">{text}</section>' for name, text in regions.items())
        return HTMLResponse(f"<main>{body}</main>{'x' * 9999}")

    return make


@pytest.mark.parametrize(
    ("length", "sizes"),
    [(1, [50]), (10, [50]), (40, [50, 25]), (500, [50, 25, 12, 6, 3]), (10**5, [50, 25, 12, 6, 3])],
)
def test_a_page_has_as_many_rows_as_fit_its_region(length, sizes):
    tried: list[int] = []
    small(made(["r" * length] * 99, tried), 1400, "list")
    assert tried == sizes


def test_regions_that_are_not_on_the_page_have_no_size():
    tried: list[int] = []
    small(made(["r" * 500] * 99, tried), 900, "gone")
    assert tried == [50]
    small(made(["r" * 5] * 99, tried), 900, "list", "end")
    assert tried[-1] == paging.LEAST, "the last region is too large whatever the list has"


def test_pages_follow_each_other_whatever_their_sizes():
    rows = list(range(120))
    page = page_of(rows, asking(), 12)
    assert (page.rows, page.next) == (rows[:12], "12")
    page = page_of(rows, asking("cursor=12"), 25)
    assert page.rows == rows[12:37]
    assert page_of(rows, asking("cursor=999"), 25).rows == rows[100:]
