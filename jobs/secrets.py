"""Secrets: which parts of a job's arguments and result its annotations mark as such."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import msgspec

from packmule.coordination.redis.replies import UNREADABLE

EACH = "*"
"""All elements of a list, all values of a mapping, and the positional arguments of `*args`."""

EACH_NAMED = "**"
"""The named arguments of `**kwargs`."""

RESULT = "return"

Parts: TypeAlias = "bool | Mapping[str, Parts]"
"""What is secret of a value: all of it, nothing, or parts by their keys, of lists by their positions."""

ALL_SECRET: Mapping[str, Parts] = {EACH: True, EACH_NAMED: True, RESULT: True}

_AGAIN = "again"
"""The place of a type within itself. If anything of that type is secret, all of it is, there."""

_Found: TypeAlias = "bool | str | dict[str, _Found]"

_WRAPPERS = (typing.Required, typing.NotRequired, typing.ClassVar, typing.Final)


class Secret:
    """Marks an argument, a field or a result that people must not see: `Annotated[str, Secret]`.

    Pages, lists, error texts and a job's log show `(hidden)` in its place.

    >>> @job
    ... def connect(user: str, password: Annotated[str, Secret]) -> None: ...  # doctest: +SKIP
    """


def secrets_of(signature: inspect.Signature, hints: Mapping[str, Any]) -> dict[str, Parts]:
    """The secrets among the arguments of a function, by name and by position, and in its result.

    >>> def connect(user: str, password: Annotated[str, Secret]) -> None: ...  # doctest: +SKIP
    >>> secrets_of(inspect.signature(connect), hints)  # doctest: +SKIP
    {'password': True, '1': True}
    """
    found: dict[str, Parts] = {}
    for position, parameter in enumerate(signature.parameters.values()):
        parts = _closed(_parts(hints.get(parameter.name), ()))
        if parameter.kind is parameter.VAR_POSITIONAL:
            found[EACH] = parts
        elif parameter.kind is parameter.VAR_KEYWORD:
            found[EACH_NAMED] = parts
        else:
            found |= {parameter.name: parts, str(position): parts}
    found[RESULT] = _closed(_parts(hints.get(RESULT), ()))
    if not any(found.values()):
        return {}
    needs_all = found.get(EACH) or found.get(EACH_NAMED)  # or those would be taken for parts of these
    return {name: parts for name, parts in found.items() if parts or needs_all}


def recorded(said: str | bytes | None) -> Mapping[str, Parts]:
    """What the record of a job says is secret; all of it if somebody has spoilt that.

    >>> recorded('{"password": true, "1": true}')
    {'password': True, '1': True}
    """
    try:
        return msgspec.json.decode(said, type=dict[str, Any]) if said else {}
    except UNREADABLE:
        return ALL_SECRET


def is_secret_text(kind: Any) -> bool:
    """Whether it is Pydantic's `SecretStr`, without importing that."""
    return isinstance(kind, type) and any(
        (each.__module__, each.__name__) == ("pydantic.types", "SecretStr") for each in kind.__mro__
    )


def revealed(value: Any, written: Any) -> Any:
    """What Pydantic has `written` for JSON of a model or a part of one, with its secret texts for the stars.

    A field that has a serializer of its own stays what that made of it.
    """
    if is_secret_text(type(value)):
        return value.get_secret_value() if written == str(value) else written
    fields = getattr(type(value), "model_fields", None)
    if isinstance(written, dict) and isinstance(fields, Mapping):
        for name, field in fields.items():
            for key in {field.serialization_alias, field.alias, name} & written.keys():
                written[key] = revealed(getattr(value, name), written[key])
    elif isinstance(written, dict) and isinstance(value, Mapping) and len(written) == len(value):
        for key, inner in zip(written, value.values(), strict=True):
            written[key] = revealed(inner, written[key])
    elif isinstance(written, list) and isinstance(value, list | tuple) and len(written) == len(value):
        written[:] = map(revealed, value, written)
    return written


def part(parts: Parts, key: str, otherwise: str = EACH) -> Parts:
    """What is secret of the part `key` of a value of whose `parts` this is said.

    >>> part({"*": {"pin": True}}, "0")
    {'pin': True}
    """
    return parts.get(key, parts.get(otherwise, False)) if isinstance(parts, Mapping) else bool(parts)


def texts_in(value: Any, parts: Parts) -> Iterator[str]:
    """The secret texts in a value that JSON can carry, and secret numbers as texts.

    >>> [*texts_in({"user": "ada", "pin": "9f2c"}, {"pin": True})]
    ['9f2c']
    """
    if not parts:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts_in(inner, part(parts, str(key)))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from texts_in(inner, part(parts, str(place)))
    elif parts is True and value is not None and not isinstance(value, bool):
        yield str(value)


def _parts(kind: Any, within: tuple[Any, ...]) -> _Found:
    """What is secret of a value of a type that is `within` these."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return any(each is Secret or isinstance(each, Secret) for each in args[1:]) or _parts(args[0], within)
    if is_secret_text(kind):
        return True
    if (inner := _wrapped(kind, origin, args)) is not None:
        return _parts(inner, within)
    if any(kind is each for each in within):
        return _AGAIN
    if origin in (typing.Union, types.UnionType):
        return _together(_parts(each, within) for each in args)
    return _of_parts(kind, origin, args, (*within, kind))


def _wrapped(kind: Any, origin: Any, args: tuple[Any, ...]) -> Any:
    """The type for which another name stands, or of which something is said; None if it is no such thing."""
    if origin in _WRAPPERS:
        return args[0]
    if type(kind).__name__ == "TypeAliasType":  # which Python 3.11 hasn't
        return kind.__value__
    return getattr(kind, "__supertype__", None)


def _of_parts(kind: Any, origin: Any, args: tuple[Any, ...], within: tuple[Any, ...]) -> _Found:
    """What is secret of a value that has elements, values or fields."""
    if isinstance(origin, type) and issubclass(origin, Mapping):
        found = {EACH: _parts(args[-1], within)}
    elif isinstance(origin, type) and issubclass(origin, Collection):
        found = {EACH: _together(_parts(each, within) for each in args)}
    else:
        found = {name: _parts(each, within) for name, each in _fields(origin or kind)}
    return {name: parts for name, parts in found.items() if parts} or False


def _together(several: Iterable[_Found]) -> _Found:
    """What is secret of a value that is of one of several types."""
    found: dict[str, _Found] = {}
    is_within = False
    for parts in several:
        if parts is True:
            return True
        is_within = is_within or parts == _AGAIN
        for name, inner in parts.items() if isinstance(parts, dict) else ():
            found[name] = _together([found.get(name, False), inner])
    if is_within and found:
        found[EACH] = _AGAIN
    return found or (is_within and _AGAIN)


def _fields(kind: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a type as JSON has them, with their types."""
    with suppress(Exception):  # annotations that nobody can evaluate, or whose code fails
        if isinstance(models := getattr(kind, "model_fields", None), Mapping):
            for name, field in models.items():
                marked = Secret in field.metadata or any(isinstance(each, Secret) for each in field.metadata)
                inner = typing.Annotated[field.annotation, Secret] if marked else field.annotation
                yield from ((each, inner) for each in {name, field.alias, field.serialization_alias} if each)
        elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from ((each.encode_name, each.type) for each in msgspec.structs.fields(kind))
        elif dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
            yield from typing.get_type_hints(kind, include_extras=True).items()
        elif isinstance(kind, type) and issubclass(kind, tuple):
            hints = typing.get_type_hints(kind, include_extras=True)
            yield from ((str(place), hints[name]) for place, name in enumerate(kind._fields))  # type: ignore[attr-defined]


def _has_any(parts: _Found) -> bool:
    return parts is True or (isinstance(parts, dict) and any(map(_has_any, parts.values())))


def _closed(found: _Found) -> Parts:
    """What was found, without places of types within themselves."""
    return _filled(found) if _has_any(found) else False


def _filled(found: _Found) -> Parts:
    return {name: _filled(each) for name, each in found.items()} if isinstance(found, dict) else bool(found)
