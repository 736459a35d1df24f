"""The filters and tests of templates: Jinja2's, but for those that look inside or differ from run to run.

Each is paid for by what it goes through and by what it makes, and is refused what would be large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, cast

from jinja2 import pass_environment, pass_eval_context
from jinja2.environment import Environment
from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.filters import (
    do_indent,
    do_replace,
    do_round,
    do_tojson,
    do_trim,
    make_attrgetter,
    sync_do_join,
    sync_do_slice,
)
from jinja2.runtime import markup_join, str_join
from jinja2.tests import TESTS as DEFAULT_TESTS

from packmule.jobs.email.templating.allowance import (
    MAX_OUTPUT,
    OverBounds,
    cost,
    counted,
    made,
    refuse_long,
    spend,
    weigh,
)
from packmule.jobs.email.templating.formats import percent
from packmule.jobs.email.templating.values import refuse_pattern

MOST_DIGITS = 20
"""Digits to which a number may be rounded."""

MOST_COLUMNS = 1_000
"""The width of a filled or indented line, and the items of a batch."""

NAMES = (
    "abs", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape",
    "filesizeformat", "first", "float", "forceescape", "format", "groupby", "indent", "int", "items", "join",
    "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse",
    "round", "safe", "select", "selectattr", "slice", "sort", "string", "striptags", "sum", "title", "tojson",
    "trim", "truncate", "unique", "upper", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr",
)  # fmt: skip
"""Not `attr` and `pprint`, which look into Python; nor `random`, by which a mail sent again would differ."""

SUBJECT_NAMES = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "filesizeformat", "first",
    "float", "format", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min",
    "reject", "rejectattr", "replace", "reverse", "round", "select", "selectattr", "sort", "string", "sum",
    "title", "trim", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip

AT_ONCE = frozenset(["count", "d", "default", "first", "last", "length"])
"""Those that neither go through their value nor make one."""

LONGEST = {"striptags": 20_000, "urlize": 20_000, "wordwrap": 20_000}
"""Characters of a text for the filters that take long for a long one."""

LONG = 100_000
"""Characters of a text for all other filters that take it apart."""

WHOLE = frozenset(
    ["capitalize", "center", "escape", "e", "forceescape", "format", "indent", "lower", "replace", "safe",
     "string", "trim", "truncate", "upper"]
)  # fmt: skip
"""Those that take a text of any length as a whole."""


def filters(names: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """The filters called `names`, and what compiled templates call: `_made`, `_looked` and `_concat`."""
    own = {"batch": _batch, "center": _center, "format": percent, "indent": _indent, "join": _join,
           "replace": _replace, "round": _round, "slice": _slice, "sum": _sum, "tojson": _tojson,
           "trim": _trim}  # fmt: skip
    known = {name: _paid(name, own.get(name, DEFAULT_FILTERS[name])) for name in names}
    return known | {
        "_made": made,
        "_looked": _looked,
        "_concat": _concat,
        "_tick": _tick,
        "_counted": counted,
    }


def tests() -> dict[str, Callable[..., Any]]:
    """All tests."""
    known = cast("dict[str, Callable[..., Any]]", DEFAULT_TESTS)
    return {name: _paid_test(test) for name, test in known.items()}


def _paid(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, paid for; its first argument may be Jinja2's context or the like."""
    place = 1 if hasattr(function, "jinja_pass_arg") else 0
    longest = LONGEST.get(name, MAX_OUTPUT if name in WHOLE else LONG)

    @wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        value = args[place]
        if name in AT_ONCE:
            spend(1)
            return function(*args, **kwargs)
        if isinstance(value, str) and len(value) > longest:
            raise OverBounds(f"|{name} takes a text of up to {longest:,} characters")
        spend(1 + cost(value))
        return made(function(*args, **kwargs), is_new=not isinstance(value, list | tuple | dict))

    return paid


def _paid_test(function: Callable[..., Any]) -> Callable[..., Any]:
    place = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        spend(1 + (sum(map(cost, args[place:])) if len(args) > place + 1 else 0))
        return function(*args, **kwargs)

    return paid


def _tick(chars: int) -> None:
    """One turn of a loop, or the begin of a macro or block, that has so much text of its own."""
    if type(chars) is int:  # a template may call this too; NaN would be an allowance without end
        spend(1, chars)


def _looked(value: Any) -> Any:
    """`value`, which is compared next."""
    if not isinstance(value, int | float):
        spend(1 + cost(value))
    return value


@pass_eval_context
def _concat(eval_ctx: Any, values: list[Any]) -> str:
    """The texts of `values`, one after another."""
    refuse_long(sum(map(weigh, values)))
    return made((markup_join if eval_ctx.autoescape else str_join)(values))  # type: ignore[no-any-return]


@pass_eval_context
def _join(eval_ctx: Any, value: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(eval_ctx.environment, attribute), value)
    found = list(counted(value))
    refuse_long(len(found) * weigh(d) + sum(map(weigh, found)))
    return sync_do_join(eval_ctx, found, d)


@pass_eval_context
def _replace(eval_ctx: Any, s: Any, old: Any, new: Any, count: int | None = None) -> str:
    text = str(s)
    refuse_long(len(text) + text.count(str(old)) * len(str(new)))
    return do_replace(eval_ctx, s, old, new, count)


def _round(value: Any, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > MOST_DIGITS:
        raise OverBounds(f"round to at most {MOST_DIGITS} digits")
    return do_round(value, precision, method)


def _center(value: Any, width: int = 80) -> str:
    return str(value).center(_few(width)) if not hasattr(value, "__html__") else value.center(_few(width))


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    columns = len(width) if isinstance(width, str) else width
    refuse_long(len(str(s)) + (str(s).count("\n") + 1) * _few(columns))
    return do_indent(s, width, first, blank)


def _batch(value: Iterable[Any], linecount: int, fill_with: Any = None) -> Iterator[list[Any]]:
    if _few(linecount) < 1:
        raise OverBounds("|batch needs a number above 0")
    row: list[Any] = []
    for item in counted(value):
        row.append(item)
        if len(row) == linecount:
            yield made(row)
            row = []
    if row:
        if fill_with is not None:
            row += [fill_with] * (linecount - len(row))
        yield made(row)


def _slice(value: Iterable[Any], slices: int, fill_with: Any = None) -> Iterator[list[Any]]:
    if _few(slices) < 1:
        raise OverBounds("|slice needs a number above 0")
    return map(made, sync_do_slice(list(counted(value)), slices, fill_with))


@pass_environment
def _sum(environment: Environment, iterable: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    total = start
    found = iterable if attribute is None else map(make_attrgetter(environment, attribute), iterable)
    for item in counted(found):
        if not isinstance(item, int | float) or not isinstance(total, int | float):
            raise OverBounds("|sum adds numbers only")
        total = made(total + item)
    return total


@pass_eval_context
def _tojson(eval_ctx: Any, value: Any, indent: int | None = None) -> str:
    refuse_long(weigh(value) * (1 + _few(indent or 0)))
    return do_tojson(eval_ctx, value, indent)


def _trim(value: Any, chars: str | None = None) -> str:
    refuse_pattern(chars)
    return do_trim(value, chars)


def _few(columns: int) -> int:
    if columns > MOST_COLUMNS:
        raise OverBounds(f"a width, or a number of columns, is at most {MOST_COLUMNS:,}")
    return columns
