"""The arguments of a call as a type of their own, against which calls are checked and explained."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, get_args

import msgspec

from packmule.jobs import wire
from packmule.jobs.secrets import is_secret_text
from packmule.plain_text import one_line

LONGEST_REASON = 300
"""Characters of what Pydantic says of a value."""


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
    schema(struct)
    return struct


def schema(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    """The arguments as a JSON schema.

    Raises `TypeError` or `RuntimeError` for a type that JSON can't carry.
    """
    parts: dict[str, Any] = {}

    def of_custom(kind: Any) -> dict[str, Any]:
        if kind is object:
            return {"title": "anything"}
        if is_secret_text(kind):
            return {"type": "string", "format": "password", "writeOnly": True}
        if not _is_model(kind):
            raise TypeError(f"{getattr(kind, '__name__', kind)} is not")
        prefix = f"{kind.__module__}.{kind.__qualname__}."
        found: dict[str, Any] = kind.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
        parts.update({prefix + name: part for name, part in found.pop("$defs", {}).items()})
        return found

    whole = msgspec.json.schema(arguments, schema_hook=of_custom)
    if parts:
        whole.setdefault("$defs", {}).update(parts)
    return whole


def converted(value: Any, kind: Any) -> Any:
    """What came as JSON, or is to be sent as such, as what an annotation says; text keys may become dates.

    Raises `msgspec.ValidationError`, `TypeError` or `UnicodeEncodeError`.
    """
    try:
        return msgspec.convert(value, kind, str_keys=True, dec_hook=_as_model)
    except (TypeError, ValueError):  # UnicodeEncodeError and ValidationError are some
        raise
    except Exception as error:  # of a model's own code
        raise msgspec.ValidationError(f"{type(error).__name__}: {error}") from None


@cache
def runs_code(arguments: type[msgspec.Struct]) -> bool:
    """Whether the check of a call runs code of the annotations, such as a model's or that of a pattern.

    It may take long then, and end the process.
    """
    return any(map(_may_run_code, msgspec.inspect.type_info(arguments).fields))  # type: ignore[attr-defined]


def _may_run_code(each: Any) -> bool:
    types = msgspec.inspect
    if isinstance(each, types.CustomType):
        return each.cls is not object
    if isinstance(each, types.StructType | types.DataclassType | types.EnumType) or getattr(
        each, "pattern", None
    ):
        return True
    return any(map(_may_run_code, _parts(each)))


def _parts(each: Any) -> Iterator[Any]:
    """The types within one."""
    for name in ("type", "item_type", "key_type", "value_type"):
        if (part := getattr(each, name, None)) is not None:
            yield part
    for name in ("item_types", "types", "fields"):
        yield from getattr(each, name, ())


def _is_model(kind: Any) -> bool:
    """Whether it is a Pydantic model, without importing that."""
    return hasattr(kind, "model_validate_json")


def _as_model(kind: Any, value: Any) -> Any:
    """A value as a Pydantic model; one that already is such a model has to be the same for the worker."""
    if is_secret_text(kind):
        return value if isinstance(value, kind) else kind(msgspec.convert(value, str))
    if not _is_model(kind):
        return value
    try:
        found = kind.model_validate_json(wire.encode_argument(value))
    except ValueError as error:
        raise ValueError(_reason(error)) from None
    if isinstance(value, kind) and found.model_dump() != value.model_dump():
        raise ValueError(
            f"this {kind.__name__} would arrive changed: give its fields serializers that keep them"
        )
    return found


def _reason(error: Any) -> str:
    """What is wrong, on one line; Pydantic's text has many, with what was given and an address."""
    if not hasattr(error, "errors"):
        return f"{error}"
    first, *more = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(map(str, first["loc"]))
    text = f"{where}: {first['msg']}" if where else first["msg"]
    return one_line(text[: 4 * LONGEST_REASON], LONGEST_REASON) + (f" (and {len(more)} more)" if more else "")


def ways_to_give(signature: inspect.Signature) -> tuple[tuple[str, ...], frozenset[str], frozenset[str]]:
    """The parameters that a call may give by position, those by name, and those that it has to give."""
    parameters = signature.parameters.values()
    required = frozenset(each.name for each in parameters if each.default is each.empty)
    if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
        return (), frozenset(), required
    positional = tuple(each.name for each in parameters if each.kind is not each.KEYWORD_ONLY)
    named = frozenset(each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY)
    return positional, named, required


def read(arguments: type[msgspec.Struct], name: str, text: str) -> Any:
    """What the argument `name` takes `text` for, as typed into a shell: JSON if that fits, else the text.

    >>> read(arguments_type(inspect.signature(report), {"month": str}), "month", "5")  # doctest: +SKIP
    '5'
    """
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    kind = next((each.type for each in msgspec.structs.fields(arguments) if each.name == name), Any)
    if isinstance(value, float) and Decimal in (kind, *get_args(kind)):
        return text  # with all of its digits
    return text if _fits(text, kind) and not _fits(value, kind) else value


def _fits(value: Any, kind: Any) -> bool:
    try:
        converted(value, kind)
    except (TypeError, UnicodeEncodeError, msgspec.ValidationError):
        return False
    return True


_EXAMPLES = {"datetime": "2026-12-01T08:00:00Z", "date": "2026-12-01", "time": "08:00:00", "duration": "PT5M"}
_TIMES = re.compile(rf"(?:Expected `|Invalid (?:RFC3339 encoded|ISO8601) )({'|'.join(_EXAMPLES)})\b")


def explained(error: Exception) -> str:
    """msgspec's text, such as `Expected `int`, got `str` - at `$.width``, with the argument in front."""
    text, is_placed, place = str(error).rpartition(" - at `$.")
    if not is_placed:
        return place
    found = _TIMES.match(text)
    example = f": give one such as {_EXAMPLES[found[1]]}" if found else ""
    return f"argument {place.rstrip('`')}: {text[0].lower()}{text[1:]}{example}"
