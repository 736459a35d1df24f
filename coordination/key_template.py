"""Keys made from a call's arguments by a template such as `{account_id}`, checked at definition."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from packmule.coordination.keys import bounded
from packmule.errors import UsageError

LONGEST_TEMPLATE = 200

EXACT_FLOAT = 2**53

_MARK = "'"
_READABLE = "@+"  # in addition to letters, digits and _ . - ~, which `quote` never escapes
_SEPARATOR = re.compile(rf"[^\w.~%{_MARK}{_READABLE}-]", re.ASCII)  # what no filled-in value contains
_PIECE = re.compile(r"([^{}]*)(?:\{([^{}]*)\})?")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_AMBIGUOUS = re.compile(r'[\[{"0-9-]|(?:true|false|null)\Z')  # texts that look like other JSON values
_ADDRESS = re.compile(r"\s*(?:[^<>]*<[^<>@]+|[^<>@]+)@([^\s@<>,;:\"()]+)>?\s*")
_encode = msgspec.json.Encoder(order="deterministic").encode


class InvalidKeyTemplate(UsageError, ValueError):
    """A key template can't be filled from the function's arguments; the text says what to write."""


class UnfitValue(UsageError, ValueError):
    """An argument of a call can't be made part of a key."""


class Field(NamedTuple):
    """An argument and the text `before` it; with `domain`, the domain of its email address only."""

    before: str
    argument: str
    domain: bool
    default: Any


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A text with places for arguments, created by `template` and filled for each call."""

    text: str
    fields: tuple[Field, ...]
    after: str

    def fill(self, arguments: Mapping[str, Any]) -> str:
        """The key of a call with these `arguments` by name; missing ones have their defaults.

        Two calls have different keys if the arguments that the template names differ. Equal numbers count as
        the same (`1` and `1.0`), and so do a date and its JSON text; `1`, the text "1" and True do not. A
        long key is shortened by a hash. Raises `UnfitValue`.
        """
        filled: list[str] = []
        for before, argument, domain, default in self.fields:
            value = arguments.get(argument, default)
            try:
                filled += before, _domain(value) if domain else _shown(value)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise UnfitValue(f"the argument {argument} can't be part of a key: {error}") from None
        return bounded("".join(filled) + self.after)


def template(text: str, signature: inspect.Signature) -> KeyTemplate:
    """The template `text` for calls of a function with this `signature`.

    `{account_id}` stands for an argument; `{to@}` for the domain of an argument that is an email address or
    a list of addresses with the same domain. Two places need a separator between them, such as `:` or `/`.
    Braces can contain nothing else. Raises `InvalidKeyTemplate`.

    >>> def invoice(account_id: int, month: str = "2026-11") -> None: ...
    >>> template("{account_id}/{month}", inspect.signature(invoice)).fill({"account_id": 7})
    "7/'2026-11"
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidKeyTemplate(f"{text!r} is not a key: write text, such as '{{account_id}}'")
    if len(text) > LONGEST_TEMPLATE or _UNFIT.search(text):
        raise _invalid(text, f"use up to {LONGEST_TEMPLATE} visible characters")
    fields: list[Field] = []
    position = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None or piece.end() == position:
            raise _invalid(text, "its braces don't match")
        position = piece.end()
        before, inside = piece.groups()
        if inside is None:
            if position < len(text):
                raise _invalid(text, "its braces don't match")
            return KeyTemplate(text, tuple(fields), before)
        if fields and not _SEPARATOR.search(before):
            raise _invalid(text, f"put a separator such as : or / before {{{inside}}}")
        fields.append(_field(text, before, inside, signature))
    return KeyTemplate(text, tuple(fields), "")


def _field(text: str, before: str, inside: str, signature: inspect.Signature) -> Field:
    argument = inside.removesuffix("@")
    if not argument.isidentifier():
        raise _invalid(text, f"braces contain an argument's name, or name@ for its domain, not {inside!r}")
    parameter = signature.parameters.get(argument)
    if parameter is None:
        known = ", ".join(signature.parameters) or "none"
        raise _invalid(text, f"the function has no argument {argument}; it has {known}")
    defaults: dict[Any, Any] = {parameter.VAR_POSITIONAL: (), parameter.VAR_KEYWORD: {}}
    default = defaults.get(parameter.kind, parameter.default)
    return Field(before, argument, inside.endswith("@"), default)


def _shown(value: Any) -> str:
    """A value as it appears in a key: readable if it is a number or plain text, and never ambiguous."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"JSON has no number {value}")
        if value.is_integer() and abs(value) < EXACT_FLOAT:
            value = int(value)
    if not isinstance(value, str):
        encoded = _encode(value)
        if not encoded.startswith(b'"'):
            return quote(encoded, safe=_READABLE)
        value = msgspec.json.decode(encoded)  # a date counts as its JSON text
    return f"{_MARK if _AMBIGUOUS.match(value) else ''}{quote(value, safe=_READABLE)}"


def _domain(value: Any) -> str:
    addresses = [value] if isinstance(value, str) else value
    if not isinstance(addresses, Sequence) or not all(isinstance(each, str) for each in addresses):
        raise ValueError("it is neither an email address nor a list of them")
    found = [_ADDRESS.fullmatch(each) for each in addresses]
    domains = {match[1].lower() for match in found if match}
    if None in found or len(domains) != 1:
        raise ValueError("it needs email addresses with the same domain, such as name@example.org")
    return quote(domains.pop(), safe="")


def _invalid(text: str, why: str) -> InvalidKeyTemplate:
    shown = repr(text) if len(text) <= LONGEST_TEMPLATE else f"{text[:LONGEST_TEMPLATE]!r}..."
    return InvalidKeyTemplate(f"{shown} is not a key: {why}")
