"""The arguments of a call as a type of their own, against which calls are checked and explained."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec


def arguments_type(signature: inspect.Signature, hints: Mapping[str, Any]) -> type[msgspec.Struct]:
    """A struct with a field for each parameter, against which calls are validated.

    Raises `TypeError` or `RuntimeError` for a type that JSON can't carry.
    """
    fields: list[tuple[str, Any, Any]] = []
    for parameter in signature.parameters.values():
        kind: Any = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_POSITIONAL:
            kind = tuple[kind, ...]
        elif parameter.kind is parameter.VAR_KEYWORD:
            kind = dict[str, kind]
        # Binding has already refused a missing argument, so each may be absent here.
        fields.append((parameter.name, kind, None))
    struct = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
    msgspec.json.Decoder(struct)
    msgspec.json.schema(struct, schema_hook=_refuse)
    return struct


def _refuse(kind: Any) -> dict[str, Any]:
    """The schema of a type that JSON lacks: only `object`, which is anything, has one."""
    if kind is object:
        return {"title": "anything"}
    raise TypeError(f"{getattr(kind, '__name__', kind)} is not")


def explained(error: Exception) -> str:
    """msgspec's text, such as `Expected `int`, got `str` - at `$.width``, with the argument in front."""
    text, _, place = str(error).partition(" - at `$.")
    return f"argument {place.rstrip('`')}: {text[0].lower()}{text[1:]}" if place else text
