"""The options of the API in one process, as the settings give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packmule.coordination.limits.rate import Rate
from packmule.units import GIB

USUAL_RATE = Rate.parse("6000/m")


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """`rate` holds for each token. Pages of `origins` may call the API from a browser.

    Files go to the storage at `storage_url`, each of `max_file_bytes` at most; without a URL none is taken.
    Bulk sends use the `templates` folder, and `mail_from` as the sender of mails that name none. The file
    `pipelines` has pipelines, and so have `modules`.
    """

    rate: Rate = USUAL_RATE
    origins: tuple[str, ...] = ()
    storage_url: str | None = None
    max_file_bytes: int = 2 * GIB
    templates: str | None = None
    mail_from: str = "packmule@localhost"
    pipelines: Path | None = None
    modules: tuple[str, ...] = ()


def api_options(
    rate: str,
    origins: tuple[str, ...],
    storage_url: str,
    max_file_bytes: int,
    templates: str | None = None,
    mail_from: str = "packmule@localhost",
    pipelines: Path | None = None,
    modules: tuple[str, ...] = (),
) -> ApiOptions:
    """The options as the settings have them. Raises `InvalidRate`.

    >>> api_options("100/s", (), "files", 10_000).rate.limit
    100
    """
    return ApiOptions(
        Rate.parse(rate), origins, storage_url, max_file_bytes, templates, mail_from, pipelines, modules
    )
