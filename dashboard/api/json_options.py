"""The options of a job as JSON has them: spans are seconds, or texts such as `"5m"`."""

from __future__ import annotations

import typing
from typing import Any, TypedDict

from packmule.dashboard.api.spans import SpanText
from packmule.jobs.options import JobOptions
from packmule.jobs.spans import Span


def _json_type(kind: Any) -> Any:
    """The type in JSON of an option that has this one in Python, where a span may be a `timedelta`, too."""
    args = typing.get_args(kind)
    if set(typing.get_args(Span)) <= set(args):
        return float | SpanText | None
    takes_spans = any(Span in typing.get_args(each) for each in args)
    return list[float | SpanText] | None if takes_spans else kind


JsonJobOptions = TypedDict(  # type: ignore[misc]  # made of those of Python
    "JsonJobOptions",
    {name: _json_type(kind) for name, kind in typing.get_type_hints(JobOptions).items()},
    total=False,
)
JsonJobOptions.__name__ = "JobOptions"  # as the description of the API calls it
