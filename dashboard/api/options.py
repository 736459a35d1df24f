"""The options of the API in one process, as the settings give them."""

from __future__ import annotations

from dataclasses import dataclass

from packmule.coordination.limits.rate import Rate
from packmule.units import GIB

USUAL_RATE = Rate.parse("6000/m")


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """`rate` holds for each token. Pages of `origins` may call the API from a browser.

    Files go to the storage at `storage_url`, each of `max_file_bytes` at most; without a URL none is taken.
    """

    rate: Rate = USUAL_RATE
    origins: tuple[str, ...] = ()
    storage_url: str | None = None
    max_file_bytes: int = 2 * GIB


def api_options(rate: str, origins: tuple[str, ...], storage_url: str, max_file_bytes: int) -> ApiOptions:
    """The options as the settings have them. Raises `InvalidRate`.

    >>> api_options("100/s", (), "files", 10_000).rate.limit
    100
    """
    return ApiOptions(Rate.parse(rate), origins, storage_url, max_file_bytes)
