"""From where files are fetched: hosts, and beginnings of URLs, that the operator names."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from packmule.errors import UsageError
from packmule.jobs.outgoing.door import shown

PORTS = {"http": 80, "https": 443}


class NotOnList(UsageError, ValueError):
    """A URL is not among those that `PACKMULE_FETCH_FROM` names."""


class FetchList:
    """What jobs may fetch: any URL without `entries`.

    An entry is a host (`example.org`), all hosts below one (`*.example.org`), or how URLs begin. Whether a
    host is internal is for the door of outgoing requests to find out.

    >>> FetchList(["*.example.org", "https://data.example.com/open/"]).check("https://a.example.org/x.csv")
    """

    def __init__(self, entries: Sequence[str] = ()) -> None:
        self.entries = tuple(entries)

    def check(self, url: str) -> None:
        """Raise `NotOnList` unless `url` may be fetched."""
        if self.entries and not any(_covers(entry, url) for entry in self.entries):
            raise NotOnList(f"{shown(url)} is not among the URLs that PACKMULE_FETCH_FROM allows")


def _covers(entry: str, url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:  # no server has such a port
        return False
    host = (parts.hostname or "").lower()
    if "://" not in entry:
        wanted = entry.lower()
        return host.endswith(wanted[1:]) if wanted.startswith("*.") else host == wanted
    begin = urlsplit(entry)
    path = unquote(parts.path) or "/"
    return (
        (parts.scheme, host, port)
        == (begin.scheme, (begin.hostname or "").lower(), begin.port or PORTS.get(begin.scheme))
        and path.startswith(unquote(begin.path))
        and not _leads_up(path)
    )


def _leads_up(path: str) -> bool:
    """Whether a server may go up for a part of `path`: some decode twice, or leave out what `;` begins."""
    parts = unquote(path).replace("\\", "/").split("/")
    return any(part.partition(";")[0] == ".." for part in parts)
