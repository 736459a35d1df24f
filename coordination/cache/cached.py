"""Cached functions: how their arguments become keys and tags."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, Generic, ParamSpec, TypeVar

from packmule.coordination.key_template import InvalidKeyTemplate, KeyTemplate, template

P = ParamSpec("P")
T = TypeVar("T")

_PLACE = re.compile(r"\{(\d+)")
_FIELD = re.compile(r"\{[^{}]*\}")


class Cached(Generic[P, T]):
    """A function whose results a cache keeps, created by `Cache.cached`; `__wrapped__` is the original.

    Raises `InvalidKeyTemplate` if a key or tag can't be made from its arguments, and `TypeError` for a
    coroutine or generator function.
    """

    def __init__(
        self,
        function: Callable[P, T],
        key: str | Callable[P, str],
        tags: Sequence[str],
        find: Callable[[str, Callable[[], T], Sequence[str]], T],
        forget: Callable[[str], None],
    ) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{self.name}: only plain functions can be cached, not async functions and generators"
            )
        self._function = function
        self._signature = inspect.signature(function)
        self._key = self._template(key) if isinstance(key, str) else key
        self._tags = [self._template(tag) for tag in tags]
        self._needs_names = bool(self._tags) or not callable(self._key)
        self._find = find
        self._forget = forget
        # Two templates of the same shape could make the same keys.
        self.shape = _FIELD.sub("{}", key) if isinstance(key, str) else self.name
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result for these arguments, from the cache or computed."""
        arguments = self._arguments(*args, **kwargs) if self._needs_names else {}
        key = self._key(*args, **kwargs) if callable(self._key) else self._key.fill(arguments)
        tags = [tag.fill(arguments) for tag in self._tags]
        return self._find(key, lambda: self._function(*args, **kwargs), tags)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind it as a method."""
        return self if instance is None else MethodType(self, instance)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of a call with these arguments. Raises `UnfitValue` if they can't be made a key."""
        if callable(self._key):
            return self._key(*args, **kwargs)
        return self._key.fill(self._arguments(*args, **kwargs))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the result for these arguments, as `Cache.invalidate` does."""
        self._forget(self.key(*args, **kwargs))

    def _arguments(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        return self._signature.bind(*args, **kwargs).arguments

    def _template(self, text: str) -> KeyTemplate:
        names = list(self._signature.parameters)

        def named(place: re.Match[str]) -> str:
            if int(place[1]) >= len(names):
                raise InvalidKeyTemplate(
                    f"{text!r} is not a key: the function has {len(names)} arguments, counted from {{0}}"
                )
            return "{" + names[int(place[1])]

        return template(_PLACE.sub(named, text), self._signature)
