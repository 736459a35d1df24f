"""A job type's rate, and by which of its arguments: `100/m by {domain}`."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

from packmule.coordination.key_template import InvalidKeyTemplate, KeyTemplate, template
from packmule.coordination.limits.rate import Rate

_BY = re.compile(r"(?P<rate>.*?)\s+by\s+(?P<key>.*)", re.DOTALL)


class RateBy(NamedTuple):
    """A rate, for each value of `key` on its own, or for all jobs together where that is None."""

    rate: Rate
    key: KeyTemplate | None


def rate_by(text: str, signature: inspect.Signature) -> RateBy:
    """What `text` says about the jobs of a function with this `signature`.

    >>> def fetch(url: str, domain: str) -> None: ...
    >>> rate_by("100/m burst 20 by {domain}", inspect.signature(fetch)).rate
    Rate(limit=100, period=60.0, burst=20)

    Raises `InvalidRate`, or `InvalidKeyTemplate` for a key that names no argument.
    """
    parts = _BY.fullmatch(text.strip()) if isinstance(text, str) else None
    if parts is None:
        return RateBy(Rate.parse(text), None)
    rate = Rate.parse(parts["rate"])
    key = template(parts["key"], signature)
    if not key.fields:
        raise InvalidKeyTemplate(f"{text!r}: put the argument in braces, as in {rate} by {{name}}")
    return RateBy(rate, key)
