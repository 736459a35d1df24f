"""A form made from a job's annotations: its fields, and the call that somebody has typed into them."""

from __future__ import annotations

import enum
import inspect
import json
import operator
import re
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import reduce
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from packmule.dashboard.typed_values import EMPTY, Kind, WrongField, as_json, is_json, typed
from packmule.jobs import masking, wire
from packmule.jobs.arguments import converted
from packmule.jobs.entry import Call
from packmule.jobs.job_type import InvalidCall, JobType

PREFIX = "arg:"
"""How the names of the fields begin, so that no argument is taken for an option."""

LONG = 60
"""Characters from which a text gets several lines."""


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
    """A parameter's default as JSON has it, if it has."""
    try:
        return msgspec.to_builtins(parameter.default, str_keys=True, enc_hook=wire.plain)
    except (TypeError, ValueError):
        return parameter.default


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
        shown = masking.masked_argument(job, name, _default(parameter))
        hint = f"{hint}; {as_json(shown)} if empty"
    elif may_be_none:
        hint = f"{hint}; null if empty"
    return Field(name, what, is_required and not may_be_none, text, hint, choices)


def _value(job: JobType, field: Field, before: Mapping[str, Any]) -> dict[str, Any]:
    """What the field says of its argument: a value by its name, or nothing for the default."""
    kind, name = _type(job, field.name), field.name
    if name in before and field.text == _shown(job, name, before):
        return {name: before[name]}  # a masked secret, too
    _, may_be_none = _without_none(kind)
    if not field.text.strip():
        if field.is_required:
            raise WrongField(
                f"it needs a value{f': {EMPTY} for an empty text' if field.kind == 'text' else ''}"
            )
        has_default = job.signature.parameters[name].default is not inspect.Parameter.empty
        return {name: None} if may_be_none and not has_default else {}
    value = masking.unmasked(typed(field.kind, field.text), before.get(name))
    if masking.is_hidden(value) and not masking.is_hidden(before.get(name)):
        raise WrongField("a secret in it is hidden: type it again")
    try:
        converted(value, kind)
    except (TypeError, UnicodeEncodeError, msgspec.ValidationError) as error:
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
        raise InvalidCall(f"{job.name}: the job's call no longer fits it: {error}") from None
    return {name: [*value] if isinstance(value, tuple) else value for name, value in found.items()}


def _shown(job: JobType, name: str, values: Mapping[str, Any]) -> str:
    """An argument as the text of its field."""
    if name not in values:
        return ""
    value = masking.masked_argument(job, name, values[name])
    kind, _ = _kind(_without_none(_type(job, name))[0])
    if value is None:
        return ""
    if isinstance(value, str) and value and kind not in ("json", "choice", "bool"):
        return as_json(value) if kind == "any" and is_json(value) else value
    return json.dumps(value, ensure_ascii=False, indent=2) if kind == "json" else as_json(value)


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
        time: ("text", "a time of day, such as 08:00:00"),
        Decimal: ("text", "a decimal number, kept exactly"),
        UUID: ("text", "a UUID"),
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
    found = [(as_json(value), words.get(value, str(value))) for value in values]
    return found if is_required else [("", "–"), *found]
