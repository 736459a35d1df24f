"""A form made from a job's annotations: its fields, and the call that somebody has typed into them."""

from __future__ import annotations

import enum
import inspect
import json
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import reduce
from typing import Any, Literal, NamedTuple

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import UsageError
from packmule.jobs import masking
from packmule.jobs.entry import Call
from packmule.jobs.job_type import InvalidCall, JobType

PREFIX = "arg:"
"""How the names of the fields begin, so that no argument is taken for an option."""

LONG = 60
"""Characters from which a text gets several lines."""

Kind = Literal["text", "int", "float", "bool", "date", "datetime", "choice", "json", "any"]

_INT = re.compile(r"[+-]?\d{1,4000}", re.ASCII)
_MINUTES = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", re.ASCII)


class Field(NamedTuple):
    """A field: `text` is what it holds, `fault` what is wrong with that, `hint` what it takes."""

    name: str
    kind: Kind
    is_required: bool
    text: str
    hint: str
    choices: Sequence[tuple[str, str]] = ()
    fault: str = ""

    @property
    def is_long(self) -> bool:
        """Whether it needs several lines."""
        return self.kind == "json" or "\n" in self.text or len(self.text) > LONG


class Read(NamedTuple):
    """What was typed: the call if nothing is wrong with it, the fields, and what is wrong with the whole."""

    call: Call | None
    fields: list[Field]
    fault: str = ""


class WrongField(UsageError, ValueError):
    """What was typed into a field can't be meant."""


def empty(job: JobType) -> list[Field]:
    """The fields for a new call; the hints name the defaults."""
    return [_field(job, name, "") for name in job.signature.parameters]


def filled(job: JobType, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Field]:
    """The fields for a copy of a call, secrets masked. Raises `InvalidCall` if it doesn't fit the job."""
    original = _by_name(job, args, kwargs)
    return [_field(job, name, _shown(job, name, original)) for name in job.signature.parameters]


def read(
    job: JobType, given: Mapping[str, str], original: tuple[Sequence[Any], Mapping[str, Any]] | None = None
) -> Read:
    """The call in a form. In that of a copy, secrets that still are masked are those of the `original`."""
    before = _by_name(job, *original) if original else {}
    values: dict[str, Any] = {}
    fields: list[Field] = []
    for name in job.signature.parameters:
        text = given.get(PREFIX + name, "").replace("\r\n", "\n")
        field = _field(job, name, text)
        try:
            found = _value(job, field, before)
        except WrongField as wrong:
            field = field._replace(fault=f"{wrong}")
        else:
            values |= found
        fields.append(field)
    if any(field.fault for field in fields):
        return Read(None, fields)
    bound = inspect.BoundArguments(job.signature, _with_defaults(job, values))
    call = bound.args, bound.kwargs
    try:
        job.validate(*call)
    except InvalidCall as error:
        return Read(None, fields, f"{error}")
    return Read(call, fields)


def _with_defaults(job: JobType, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and the defaults in front of those that have to be given by position."""
    parameters = [*job.signature.parameters.values()]
    by_position = [
        place
        for place, each in enumerate(parameters)
        if each.kind in (each.POSITIONAL_ONLY, each.VAR_POSITIONAL) and values.get(each.name, ()) != ()
    ]
    filled = {each.name: _default(each) for each in parameters[: max(by_position, default=0)]}
    return {**filled, **values}


def _default(parameter: inspect.Parameter) -> Any:
    """A parameter's default as JSON has it."""
    return parameter.default.value if isinstance(parameter.default, enum.Enum) else parameter.default


def _field(job: JobType, name: str, text: str) -> Field:
    parameter, kind = job.signature.parameters[name], _type(job, name)
    inner, may_be_none = _without_none(kind)
    is_required = parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )
    what, hint = _kind(inner)
    choices = _choices(inner, is_required and not may_be_none) if what in ("choice", "bool") else ()
    if parameter.kind is parameter.VAR_POSITIONAL:
        hint = "more positional arguments: a list as JSON"
    elif parameter.kind is parameter.VAR_KEYWORD:
        hint = "more named arguments: an object as JSON"
    elif not is_required:
        shown = masking.masked({name: _default(parameter)})[name]
        hint = f"{hint}; {_json(shown)} if empty"
    elif may_be_none:
        hint = f"{hint}; null if empty"
    return Field(name, what, is_required and not may_be_none, text, hint, choices)


def _value(job: JobType, field: Field, before: Mapping[str, Any]) -> dict[str, Any]:
    """What the field says of its argument: a value by its name, or nothing for the default."""
    kind, name = _type(job, field.name), field.name
    if name in before and field.text == _shown(job, name, before):
        return {name: before[name]}  # a masked secret, too
    inner, may_be_none = _without_none(kind)
    if not field.text.strip() and not (field.kind == "text" and field.is_required):
        if field.is_required:
            raise WrongField("it needs a value")
        has_default = job.signature.parameters[name].default is not inspect.Parameter.empty
        return {name: None} if may_be_none and not has_default else {}
    value = masking.unmasked(_READ[field.kind](field.text, inner), before.get(name))
    if masking.is_hidden(value) and not masking.is_hidden(before.get(name)):
        raise WrongField("a secret in it is hidden: type it again")
    try:
        msgspec.convert(value, type=kind, str_keys=True)
    except (TypeError, msgspec.ValidationError) as error:
        raise WrongField(f"{error}".replace("`", "")) from None
    return {
        name: tuple(value)
        if job.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        else value
    }


def _by_name(job: JobType, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name; those of `*args` are a list, and those of `**kwargs` a mapping."""
    try:
        found = job.signature.bind_partial(*args, **kwargs).arguments
    except TypeError as error:
        raise InvalidCall(f"{job.name}: the job's call doesn't fit it any more: {error}") from None
    return {name: [*value] if isinstance(value, tuple) else value for name, value in found.items()}


def _shown(job: JobType, name: str, values: Mapping[str, Any]) -> str:
    """An argument as the text of its field."""
    if name not in values:
        return ""
    value = masking.masked({name: values[name]})[name]
    kind, _ = _kind(_without_none(_type(job, name))[0])
    if value is None:
        return ""
    if isinstance(value, str) and kind not in ("json", "choice", "bool"):
        return _json(value) if kind == "any" and _is_json(value) else value
    return json.dumps(value, ensure_ascii=False, indent=2) if kind == "json" else _json(value)


def _type(job: JobType, name: str) -> Any:
    return next(each.type for each in msgspec.structs.fields(job.arguments) if each.name == name)


def _without_none(kind: Any) -> tuple[Any, bool]:
    """A type without None, and whether it may be that."""
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind, kind in (None, types.NoneType)
    rest = [each for each in typing.get_args(kind) if each is not types.NoneType]
    may_be_none = len(rest) < len(typing.get_args(kind))
    return (_without_none(rest[0])[0] if len(rest) == 1 else reduce(operator.or_, rest)), may_be_none


def _kind(inner: Any) -> tuple[Kind, str]:
    """The kind of field for a type, and what to type into it."""
    if typing.get_origin(inner) is Literal or (isinstance(inner, type) and issubclass(inner, enum.Enum)):
        return "choice", "one of these"
    simple: dict[Any, tuple[Kind, str]] = {
        str: ("text", "text"),
        bool: ("bool", "yes or no"),
        int: ("int", "a whole number"),
        float: ("float", "a number"),
        date: ("date", "a date, such as 2026-12-01"),
        datetime: ("datetime", "a time, such as 2026-12-01T08:00:00Z"),
        Any: ("any", "JSON, or text"),
        object: ("any", "JSON, or text"),
    }
    if inner in simple:
        return simple[inner]
    if typing.get_origin(inner) in (typing.Union, types.UnionType):
        return "any", "JSON, or text"
    name = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(inner) if typing.get_origin(inner) else inner.__name__)
    return "json", f"{name} as JSON"


def _choices(inner: Any, is_required: bool) -> list[tuple[str, str]]:
    """The values to choose from as JSON, and how they are shown."""
    if inner is bool:
        values: Sequence[Any] = (True, False)
    else:
        values = typing.get_args(inner) or [each.value for each in inner]
    words = {True: "yes", False: "no"} if inner is bool else {}
    found = [(_json(value), words.get(value, str(value))) for value in values]
    return found if is_required else [("", "–"), *found]


def _int(text: str, inner: Any) -> int:
    if not _INT.fullmatch(text.strip()):
        raise WrongField("that is not a whole number")
    return int(text)


def _float(text: str, inner: Any) -> float:
    try:
        value = float(text)
    except ValueError:
        raise WrongField("that is not a number") from None
    if not math.isfinite(value):
        raise WrongField("that is not a number that JSON can hold")
    return value


def _from_json(text: str, inner: Any) -> Any:
    try:
        return msgspec.json.decode(text)
    except (UnicodeEncodeError, *UNREADABLE) as error:
        raise WrongField(f"that is not JSON: {error}") from None


def _any(text: str, inner: Any) -> Any:
    return msgspec.json.decode(text) if _is_json(text) else text


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (UnicodeEncodeError, *UNREADABLE):
        return False
    return True


def _datetime(text: str, inner: Any) -> str:
    text = text.strip()
    return f"{text}:00" if _MINUTES.fullmatch(text) else text


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return "…"


_READ: Mapping[Kind, Callable[[str, Any], Any]] = {
    "text": lambda text, inner: text,
    "int": _int,
    "float": _float,
    "bool": _from_json,
    "date": lambda text, inner: text.strip(),
    "datetime": _datetime,
    "choice": _from_json,
    "json": _from_json,
    "any": _any,
}
