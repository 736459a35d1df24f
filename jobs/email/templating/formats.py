"""Formats and operators of templates, within bounds: none makes a large text or number of a short one."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

from markupsafe import Markup, escape, soft_str

from packmule.jobs.email.templating.allowance import (
    MAX_WEIGHT,
    OverBounds,
    made,
    refuse_large,
    refuse_long,
    spend,
    weigh,
)

MOST_FIELDS = 1_000

_WIDE = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(?:\*|\d{4,})|%(?:\([^)]*\))?[-+ #0]*\d*\.(?:\*|\d{4,})")
"""A width or precision of over 999, or one that is an argument, in a `%` format."""

_SPEC = re.compile(r"(?:.?[<>=^])?[-+ ]?z?#?0?\d{0,3}[_,]?(?:\.\d{1,3})?[bcdeEfFgGnosxX%]?")
_FIELD = re.compile(r"\d{0,3}|[A-Za-z][A-Za-z0-9_]*")


def plus(left: Any, right: Any) -> Any:
    """`left + right`."""
    if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        refuse_long(len(left) + len(right))
    return made(left + right)


def minus(left: Any, right: Any) -> Any:
    """`left - right`."""
    return made(left - right)


def times(left: Any, right: Any) -> Any:
    """`left * right`."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str | list | tuple) and isinstance(other, int):
            refuse_long(len(one) * other)
            if weigh(one) * other > MAX_WEIGHT:
                raise OverBounds(f"it would make a value of more than {MAX_WEIGHT:,} characters and items")
    if isinstance(left, int) and isinstance(right, int):
        refuse_large(left.bit_length() + right.bit_length())
    return made(left * right)


def power(left: Any, right: Any) -> Any:
    """`left ** right`."""
    if isinstance(left, int) and isinstance(right, int):
        refuse_large(left.bit_length() * right)
    return made(left**right)


def divided(left: Any, right: Any) -> Any:
    """`left / right`."""
    return made(left / right)


def floored(left: Any, right: Any) -> Any:
    """`left // right`."""
    return made(left // right)


def modulo(left: Any, right: Any) -> Any:
    """`left % right`, which for a text is formatting."""
    if isinstance(left, str):
        _refuse_wide(left, right)
    return made(operator.mod(left, right))


OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": plus, "-": minus, "*": times, "/": divided, "//": floored, "**": power, "%": modulo,
}  # fmt: skip


def percent(value: Any, *args: Any, **kwargs: Any) -> str:
    """The filter `format`: `"%s of %d"|format(name, 3)`."""
    if args and kwargs:
        raise TypeError("give format either values or names, not both")
    return modulo(soft_str(value), kwargs or args)  # type: ignore[no-any-return]


def braces(text: str, *args: Any, **kwargs: Any) -> str:
    """`text.format(...)`: fields by position or name, with a width and precision of up to 999.

    >>> from packmule.jobs.email.templating.allowance import allowance
    >>> with allowance():
    ...     braces("{:,.2f} {currency}", 1234.5, currency="EUR")
    '1,234.50 EUR'
    """
    pieces, size, position = [], 0, 0
    for number, (literal, field, spec, conversion) in enumerate(Formatter().parse(text)):
        spend(1)
        pieces.append(literal)
        if field is not None:
            if number >= MOST_FIELDS or conversion not in {None, "s"} or not _FIELD.fullmatch(field):
                raise OverBounds(
                    f"a format has at most {MOST_FIELDS:,} fields such as {{}}, {{0}}, {{name}} or {{:.2f}}, "
                    "and nothing within a field"
                )
            if spec and not _SPEC.fullmatch(spec):
                raise OverBounds("a format's width and precision are numbers up to 999")
            if field and not field.isdigit():
                value = kwargs[field]
            else:
                value = args[int(field) if field else position]
                position += 1
            if not isinstance(value, str | int | float):
                weigh(value)
                value = str(value)
            shown = format(str(value) if conversion else value, spec or "")
            pieces.append(escape(value if not spec else shown) if isinstance(text, Markup) else shown)
        size += sum(map(len, pieces[-2:]))
        refuse_long(size)
    whole = "".join(pieces)
    return Markup(whole) if isinstance(text, Markup) else whole  # noqa: S704  the values are escaped above


def _refuse_wide(text: str, given: Any) -> None:
    if _WIDE.search(text):
        raise OverBounds("a format's width and precision are numbers up to 999")
    named = isinstance(given, Mapping)
    largest = max(map(weigh, given.values()), default=0) if named else weigh(given)
    fields = text.count("%")
    if fields > MOST_FIELDS:
        raise OverBounds(f"a format has at most {MOST_FIELDS:,} fields")
    refuse_long(len(text) + fields * largest)
