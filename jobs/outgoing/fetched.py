"""Downloads in jobs: of what their process may fetch, before it leaves the network."""

from __future__ import annotations

from pathlib import Path

from packmule.jobs import context, current
from packmule.jobs.outgoing.door import Allowed
from packmule.jobs.outgoing.download import download
from packmule.jobs.outgoing.fetch_list import FetchList


def fetched(url: str, file: Path, most: int, seconds: float | None = None) -> str:
    """Write what is at `url` to `file` as `download` does, and leave the network; the URL at which that was.

    The `Allowed` and the `FetchList` are those that are lent to this process's jobs. Raises `NotOnList`, and
    what `download` does.
    """
    allowed, urls = context.resources.get(Allowed), context.resources.get(FetchList)
    last = download(
        url,
        file,
        most,
        allowed if isinstance(allowed, Allowed) else Allowed(),
        seconds=seconds,
        check=(urls if isinstance(urls, FetchList) else FetchList()).check,
        report=lambda size: current.progress(size, None, "fetching"),
    )
    current.leave_network()
    return last
