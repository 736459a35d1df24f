"""What a template can reach of a value: its items, and a few methods. Nothing leads on into Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2.environment import TemplateModule
from jinja2.filters import _GroupTuple
from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.utils import Cycler, Joiner, Namespace, missing
from markupsafe import Markup

from packmule.jobs.email.templating.allowance import OverBounds, cost, refuse_long, spend, weigh
from packmule.jobs.email.templating.formats import braces

MOST_COLUMNS = 1_000
_SEARCHING = frozenset(["lstrip", "rfind", "rindex", "rstrip", "strip"])
LONGEST_PATTERN = 1000
LONGEST_SPLIT = 100_000
MOST_PAIRS = 1_000


class Method:
    """A method of a value, which only a template's call can use."""

    __slots__ = ("function", "value")

    def __init__(self, value: Any, function: Callable[..., Any]) -> None:
        self.value = value
        self.function = function


def _text(name: str) -> Callable[..., Any]:
    def method(value: str, *args: Any, **kwargs: Any) -> Any:
        spend(1 + (len(value) >> 6))
        if name in _SEARCHING and args:
            refuse_pattern(args[0])
        return getattr(value, name)(*args, **kwargs)

    return method


def refuse_pattern(text: Any) -> None:
    """Raise `OverBounds` for what a text is searched for again at each of its places, if it is long."""
    if isinstance(text, str) and len(text) > LONGEST_PATTERN:
        raise OverBounds(
            f"what is stripped, or searched from the end, has up to {LONGEST_PATTERN:,} characters"
        )


def _split(name: str) -> Callable[..., Any]:
    def method(value: str, *args: Any, **kwargs: Any) -> Any:
        if len(value) > LONGEST_SPLIT:
            raise OverBounds(f"a text of more than {LONGEST_SPLIT:,} characters can't be split")
        return getattr(value, name)(*args, **kwargs)

    return method


def _filled(name: str) -> Callable[..., Any]:
    def method(value: str, width: int, *fill: str) -> Any:
        if width > MOST_COLUMNS:
            raise OverBounds(f"a text is filled up to {MOST_COLUMNS:,} characters")
        return getattr(value, name)(width, *fill)

    return method


def _joined(value: str, items: Any) -> str:
    found = list(items)
    spend(1 + (len(found) >> 3))
    refuse_long(len(found) * len(value) + sum(map(weigh, found)))
    return value.join(found)


def _replaced(value: str, old: str, new: str, *count: int) -> str:
    spend(1 + (len(value) >> 6))
    refuse_long(len(value) + value.count(old) * len(new))
    return value.replace(old, new, *count)


def _pairs(name: str) -> Callable[..., Any]:
    def method(value: Mapping[str, Any]) -> Any:
        return list(getattr(value, name)())

    return method


TEXT: Mapping[str, Callable[..., Any]] = {
    **{
        name: _text(name)
        for name in (
            "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
            "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "lower",
            "lstrip", "removeprefix", "removesuffix", "rfind", "rindex", "rstrip", "startswith", "strip",
            "swapcase", "title", "upper",
        )
    },
    **{name: _split(name) for name in ("partition", "rpartition", "rsplit", "split", "splitlines")},
    **{name: _filled(name) for name in ("center", "ljust", "rjust", "zfill")},
    "format": braces,
    "join": _joined,
    "replace": _replaced,
}  # fmt: skip
"""The methods of texts."""


def _sought(name: str) -> Callable[..., Any]:
    def method(value: Any, item: Any) -> int:
        spend(1 + cost(value))
        return getattr(value, name)(item)  # type: ignore[no-any-return]

    return method


_LIST = {name: _sought(name) for name in ("count", "index")}
_METHODS: Mapping[type, Mapping[str, Callable[..., Any]]] = {
    str: TEXT,
    Markup: TEXT,
    list: _LIST,
    tuple: _LIST,
    dict: {"get": dict.get, **{name: _pairs(name) for name in ("items", "keys", "values")}},
}

_ATTRIBUTES: Mapping[type, frozenset[str]] = {
    LoopContext: frozenset(
        ["changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length", "nextitem",
         "previtem", "revindex", "revindex0"]
    ),
    Cycler: frozenset(["current", "next", "reset"]),
    BlockReference: frozenset(["super"]),
    _GroupTuple: frozenset(["grouper", "list"]),
    Macro: frozenset(["name"]),
}  # fmt: skip

CALLED = (Macro, BlockReference, LoopContext, Joiner)
"""What a template may call besides methods and its globals."""


def attribute(value: Any, name: str) -> Any:
    """What `value.name` is for a template, except for an item of that name; `missing` if nothing."""
    kind = type(value)
    method = _METHODS.get(kind, {}).get(name)
    if method is not None:
        return Method(value, method)
    if name in _ATTRIBUTES.get(kind, ()):
        found = getattr(value, name)
        return Method(value, lambda _, *args: found(*args)) if callable(found) and kind in _CALLING else found
    if kind is Namespace or kind is TemplateModule:
        return _stored(value, name)
    return missing


_CALLING = (LoopContext, Cycler)


def _stored(value: Any, name: str) -> Any:
    if name.startswith("_"):
        return missing
    if isinstance(value, Namespace):
        try:
            return getattr(value, name)
        except AttributeError:
            return missing
    return vars(value).get(name, missing)


def namespace(*args: Any, **kwargs: Any) -> Namespace:
    """The global `namespace`, whose attributes a template can set."""
    return Namespace(pairs(*args, **kwargs))


def pairs(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """The global `dict`. Few pairs: there are numbers that a dictionary takes long to tell apart."""
    if args and (len(args) > 1 or not isinstance(args[0], list | tuple | dict) or len(args[0]) > MOST_PAIRS):
        raise OverBounds(f"dict takes names with values, or a list of up to {MOST_PAIRS:,} pairs")
    return dict(*args, **kwargs)
