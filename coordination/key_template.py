"""Keys from a call's arguments: a template such as `{account_id}`, checked when its function is defined."""

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

LONGEST_TEMPLATE = 200

EXACT_FLOAT = 2**53

_MARK = "'"
_READABLE = "@+"  # beside letters, digits and _ . - ~, which `quote` leaves as they are
_SEPARATOR = re.compile(rf"[^\w.~%{_MARK}{_READABLE}-]", re.ASCII)  # what no filled-in value contains
_PIECE = re.compile(r"([^{}]*)(?:\{([^{}]*)\})?")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_AMBIGUOUS = re.compile(r'[\[{"0-9-]|(?:true|false|null)\Z')  # texts that begin as other JSON values do
_ADDRESS = re.compile(r"\s*(?:[^<>]*<[^<>@]+|[^<>@]+)@([^\s@<>,;:\"()]+)>?\s*")
_encode = msgspec.json.Encoder(order="deterministic").encode


class InvalidTemplate(ValueError):
    """A key template that can't be filled from the function's arguments; it says what to write."""


class UnfitValue(ValueError):
    """A call with an argument of which no key can be made."""


class Field(NamedTuple):
    """The place of an argument, after the text `before` it; with `domain` only that of its e-mail address."""

    before: str
    argument: str
    domain: bool
    default: Any


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A text with arguments in it, made by `template`, and filled for each call."""

    text: str
    fields: tuple[Field, ...]
    after: str

    def fill(self, arguments: Mapping[str, Any]) -> str:
        """The key of a call with these `arguments` by name; those left out have their defaults.

        Different calls have different keys, as long as the arguments that the template names differ. Equal
        numbers are the same (`1` and `1.0`), and so is a date and the text that JSON carries it as; `1`, the
        text "1" and True are not. A long key is shortened by a hash. Raises `UnfitValue`.
        """
        filled: list[str] = []
        for before, argument, domain, default in self.fields:
            value = arguments.get(argument, default)
            try:
                filled += before, _domain(value) if domain else _shown(value)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise UnfitValue(f"no key can be made of argument {argument}: {error}") from None
        return bounded("".join(filled) + self.after)


def template(text: str, signature: inspect.Signature) -> KeyTemplate:
    """The template `text` for calls of a function with this `signature`.

    `{account_id}` stands for an argument, `{to@}` for the domain of an argument that is an e-mail address,
    or a list of addresses with one domain. Between two of them there must be a sign that separates, such as
    `:` or `/`. Nothing else is possible in braces. Raises `InvalidTemplate`.

    >>> def invoice(account_id: int, month: str = "2026-11") -> None: ...
    >>> template("{account_id}/{month}", inspect.signature(invoice)).fill({"account_id": 7})
    "7/'2026-11"
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidTemplate(f"{text!r} is no key: write text, such as '{{account_id}}'")
    if len(text) > LONGEST_TEMPLATE or _UNFIT.search(text):
        raise _invalid(text, f"use up to {LONGEST_TEMPLATE} characters, all of them visible")
    fields: list[Field] = []
    position = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None or piece.end() == position:
            raise _invalid(text, "its braces don't pair")
        position = piece.end()
        before, inside = piece.groups()
        if inside is None:
            if position < len(text):
                raise _invalid(text, "its braces don't pair")
            return KeyTemplate(text, tuple(fields), before)
        if fields and not _SEPARATOR.search(before):
            raise _invalid(text, f"put a sign such as : or / before {{{inside}}}")
        fields.append(_field(text, before, inside, signature))
    return KeyTemplate(text, tuple(fields), "")


def _field(text: str, before: str, inside: str, signature: inspect.Signature) -> Field:
    argument = inside.removesuffix("@")
    if not argument.isidentifier():
        raise _invalid(text, f"in braces stands an argument's name, or name@ for its domain, not {inside!r}")
    parameter = signature.parameters.get(argument)
    if parameter is None:
        known = ", ".join(signature.parameters) or "none"
        raise _invalid(text, f"the function has no argument {argument}; it has {known}")
    defaults: dict[Any, Any] = {parameter.VAR_POSITIONAL: (), parameter.VAR_KEYWORD: {}}
    default = defaults.get(parameter.kind, parameter.default)
    return Field(before, argument, inside.endswith("@"), default)


def _shown(value: Any) -> str:
    """A value as its place shows it: readable where it is a number or a plain text, never ambiguous."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number that JSON can carry")
        if value.is_integer() and abs(value) < EXACT_FLOAT:
            value = int(value)
    if not isinstance(value, str):
        encoded = _encode(value)
        if not encoded.startswith(b'"'):
            return quote(encoded, safe=_READABLE)
        value = msgspec.json.decode(encoded)  # a date is the text that JSON carries
    return f"{_MARK if _AMBIGUOUS.match(value) else ''}{quote(value, safe=_READABLE)}"


def _domain(value: Any) -> str:
    addresses = [value] if isinstance(value, str) else value
    if not isinstance(addresses, Sequence) or not all(isinstance(each, str) for each in addresses):
        raise ValueError("it is neither an e-mail address nor a list of them")
    found = [_ADDRESS.fullmatch(each) for each in addresses]
    domains = {match[1].lower() for match in found if match}
    if None in found or len(domains) != 1:
        raise ValueError("it needs e-mail addresses of one domain, such as name@example.org")
    return quote(domains.pop(), safe="")


def _invalid(text: str, why: str) -> InvalidTemplate:
    shown = repr(text) if len(text) <= LONGEST_TEMPLATE else f"{text[:LONGEST_TEMPLATE]!r}..."
    return InvalidTemplate(f"{shown} is no key: {why}")
