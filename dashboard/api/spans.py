"""Spans in requests: seconds, or texts such as `"5m"`."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Annotated

import msgspec

from packmule.dashboard.api.problems import Fault, Refused
from packmule.jobs.spans import UnfitSpan, in_seconds
from packmule.units import given_span

SpanText = Annotated[str, msgspec.Meta(description="A span: 90s, 5m, 1h30m, 2d.", examples=["5m"])]


def seconds_up_to(most: float, given: float | str, name: str, *, in_query: bool = False) -> float:
    """What is given for `name`, a field of the body or the query, in seconds. Raises `Refused`.

    >>> seconds_up_to(60, "1m", "timeout"), seconds_up_to(60, 0.5, "timeout")
    (60.0, 0.5)
    """
    try:
        found = in_seconds(given)
    except UnfitSpan as error:
        found, detail = -1.0, str(error)
        with suppress(ValueError):
            found = float(given)  # such as 0.30000000000000004, which programs write into queries
    else:
        detail = f"{given!r:.100}: give a span from 0 to {given_span(most)}"
    if 0 <= found <= most:
        return found
    fault = partial(Fault, parameter=name) if in_query else partial(Fault, pointer=f"#/{name}")
    raise Refused(422, "UnfitSpan", f"{name}: {detail}", fault(detail))
