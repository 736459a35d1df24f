"""Suppressed: the addresses and domains that get no mail; adding and removing them, CSV in and out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from packmule.dashboard.acting import acting, go
from packmule.dashboard.forms import fields, upload
from packmule.dashboard.pages.addresses import address
from packmule.dashboard.pages.mail import csv_file
from packmule.dashboard.pages.paging import MOST_BYTES, asked, choice, small
from packmule.dashboard.pages.rendering import render
from packmule.dashboard.rights import needs
from packmule.dashboard.viewer import Role
from packmule.errors import UsageError
from packmule.jobs.email.message.addresses import InvalidAddress
from packmule.jobs.email.suppression.addresses import name_of, shown
from packmule.jobs.email.suppression.store import (
    SOURCES,
    NotSuppressed,
    Suppressed,
    Suppressions,
)
from packmule.jobs.email.suppression.table import Imported, bring_in, export
from packmule.units import DAY

MOST_TRIPS = 8
"""Looks at some hundreds of the list each, for one page."""

MOST_CURSOR = 40
EXPORTED = 500
LONGEST = 320


class Place(NamedTuple):
    """Where a page begins: a cursor of the list, and how many of what is there were shown before."""

    cursor: int = 0
    skip: int = 0

    def __str__(self) -> str:
        return f"{self.cursor}-{self.skip}"


class Page(NamedTuple):
    """Some of the list, and where the next page begins, None at the end."""

    rows: list[Suppressed]
    next: Place | None


def suppressed(request: Request) -> Response:
    """`/mail/suppressed`: who gets no mail, why and until when."""
    store = Suppressions(request.app.state.site.client)
    sees = request.state.viewer.may_see_payloads
    who, source = asked(request) if sees else "", choice(request, "source", ("", *SOURCES))

    def of_rows(size: int) -> Response:
        page = _page(store, _place(request), size, who, source) if sees else Page([], None)
        return render(
            request,
            "mail_suppressed.html",
            page=page,
            asked=who,
            source=source,
            sources=SOURCES,
            count=store.count(),
            sees=sees,
            shown=shown,
        )

    return small(of_rows, MOST_BYTES, "list")


@needs(Role.OPERATOR)
def add(request: Request) -> Response:
    """`POST /mail/suppressed`: send no mail to an address or a domain, for some days or for ever."""
    given, back = fields(request), address(request, "mail_suppressed")
    try:
        name, seconds = name_of(given.get("who", "")[:LONGEST]), _seconds(given)
    except (InvalidAddress, UsageError) as error:
        return go(request, back, f"Nobody was added: {error}.")
    with acting(request, "suppression add", names=[shown(name)]):
        is_new = Suppressions(request.app.state.site.client).add_all(
            [(name, given.get("reason", "").strip() or "no reason given")], "operator", seconds
        )
    return go(request, back, f"{shown(name)} {'gets no mail' if is_new else 'was already suppressed'}.")


@needs(Role.OPERATOR)
def remove(request: Request) -> Response:
    """`POST /mail/suppressed/remove`: let an address or a domain get mail again."""
    given, back = fields(request), address(request, "mail_suppressed")
    try:
        name = name_of(given.get("who", "")[:LONGEST])
        with acting(request, "suppression remove", names=[shown(name)]):
            Suppressions(request.app.state.site.client).remove(name)
    except (InvalidAddress, NotSuppressed) as error:
        return go(request, back, f"Nothing was done: {error}.")
    return go(request, back, f"{shown(name)} gets mail again.")


@needs(Role.OPERATOR)
def bring(request: Request) -> Response:
    """`POST /mail/suppressed/import`: add the addresses and domains of a CSV file."""
    given, content = upload(request, "file")
    back = address(request, "mail_suppressed")
    if content is None:
        return go(request, back, "Nobody was added: choose a CSV, or a file with one address per line.")
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    try:
        seconds = _seconds(given)
        with acting(request, "suppression import") as subject:
            done = bring_in(text, Suppressions(request.app.state.site.client), seconds)
            subject.update(added=done.added, bad=done.bad)
    except UsageError as error:
        return go(request, back, f"Only part of it was done: {error}.")
    return go(request, back, _said(done))


def csv(request: Request) -> Response:
    """`/mail/suppressed.csv`: the whole list."""
    store = Suppressions(request.app.state.site.client)
    return csv_file(request, "suppressed.csv", lambda: _parts(store))


def _parts(store: Suppressions) -> Iterator[str]:
    """The list as CSV, some hundred lines at a time, of which the first has the columns' names."""
    rows, is_first = iter(store), True
    while True:
        some = list(islice(rows, EXPORTED))
        if not some and not is_first:
            return
        part = io.StringIO()
        export(some, part)
        yield part.getvalue() if is_first else part.getvalue().partition("\n")[2]
        is_first = False


def _page(store: Suppressions, place: Place, size: int, who: str, source: str) -> Page:
    if "@" in who.removeprefix("@"):
        try:
            found = store.find(who)
        except InvalidAddress:
            found = None
        return Page([found] if found is not None else [], None)
    ending = who.removeprefix("@").lower()
    rows: list[Suppressed] = []
    for _ in range(MOST_TRIPS):
        following, some = store.page(place.cursor)
        for number, each in enumerate(some[place.skip :], place.skip + 1):
            if each.name.endswith(ending) and source in ("", each.source):
                rows.append(each)
                if len(rows) == size:
                    is_last = number == len(some) and not following
                    return Page(rows, None if is_last else Place(place.cursor, number))
        if not following:
            return Page(rows, None)
        place = Place(following)
    return Page(rows, place)


def _place(request: Request) -> Place:
    cursor, _, skip = request.query_params.get("cursor", "")[:MOST_CURSOR].partition("-")
    numbers = [int(each) if each.isascii() and each.isdecimal() else 0 for each in (cursor, skip)]
    return Place(min(numbers[0], 2**63), min(numbers[1], 10**6))


def _seconds(given: dict[str, str]) -> float | None:
    """The span that a form names in days; None is for ever. Raises `UsageError`."""
    text = given.get("days", "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) <= 5 or not int(text):  # noqa: PLR2004
        raise UsageError(f"{text[:20]!r} days: write a number such as 30, or nothing for forever")
    return float(min(int(text) * DAY, 36_500 * DAY))


def _said(done: Imported) -> str:
    said = f"{done.added:,} added, {done.known:,} were already suppressed."
    if done.over:
        said += f" {done.over:,} have expired."
    if done.bad:
        said += f" {done.bad:,} rows are bad: {'; '.join(done.reasons[:3])}"
    return said


ROUTES = [
    Route("/mail/suppressed", suppressed, methods=["GET"], name="mail_suppressed"),
    Route("/mail/suppressed", add, methods=["POST"], name="suppress"),
    Route("/mail/suppressed/remove", remove, methods=["POST"], name="unsuppress"),
    Route("/mail/suppressed/import", bring, methods=["POST"], name="import_suppressed"),
    Route("/mail/suppressed.csv", csv, methods=["GET"], name="suppressed_csv"),
]
