"""Bounds on what a template can compute: a few bytes of it must not take a worker's memory or time."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes, pass_eval_context
from jinja2.filters import do_format, do_replace, do_round, sync_do_join
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_OUTPUT = 1_000_000
"""The most characters of one rendered part of a mail, and of any text or list that is computed for it."""

MAX_SUBJECT = 1_000
"""The most characters of a subject that is a template."""

MOST_BITS = 10_000
"""The size of numbers that `*` and `**` may make."""

MOST_DIGITS = 20
"""Digits to which a number may be rounded."""

SUBJECT_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "filesizeformat", "first",
    "float", "format", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min",
    "reject", "rejectattr", "replace", "reverse", "round", "select", "selectattr", "sort", "string", "sum",
    "title", "trim", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
"""Those that make no more of a text than was there, and those that are bounded here."""

_SUBJECT_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.Name, nodes.Const, nodes.Getattr,
    nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.CondExpr, nodes.Compare, nodes.Operand,
    nodes.Concat, nodes.BinExpr, nodes.UnaryExpr, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair,
    nodes.Keyword,
)  # fmt: skip

_WIDE = re.compile(r"%[-+ #0]*(?:\*|\d{4,})|%[-+ #0]*\d*\.(?:\*|\d{4,})")
"""A width or precision of over 999, or one that is an argument, in a `%` format."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, in which operators and filters make nothing large. Nothing is computed ahead."""

    # Jinja2 computes what is constant when it compiles, but for the operators that are named here.
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **options: Any) -> None:
        super().__init__(undefined=StrictUndefined, **options)
        self.filters.update(format=_format, join=_join, replace=_replace, round=_round)
        bounded: Mapping[str, Callable[[Any, Any], Any]] = {
            "+": _plus, "*": _times, "**": _power, "%": _modulo,
        }  # fmt: skip
        self.binop_table.update(bounded)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The value of `left operator right`. Raises `OverflowError` if it would be too large."""
        return self.binop_table[operator](left, right)


class SubjectEnvironment(BoundedEnvironment):
    """For subjects, which come with the job: expressions and `if`, and filters that make nothing large."""

    def __init__(self) -> None:
        super().__init__(autoescape=False)
        self.filters = {name: self.filters[name] for name in SUBJECT_FILTERS}
        self.globals.clear()

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SUBJECT:
            raise OverflowError(f"a subject that is a template has at most {MAX_SUBJECT:,} characters")
        return _Checked().visit(super()._parse(source, name, filename))  # type: ignore[no-any-return]


class _Checked(NodeTransformer):
    """Refuses what a subject needn't have, and lets `~` be bounded as `join` is."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if not isinstance(node, _SUBJECT_NODES):
            raise TemplateSyntaxError(
                f"a subject may not use {type(node).__name__.lower()}: use variables, filters and if",
                node.lineno,
            )
        return super().generic_visit(node, *args, **kwargs)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802  Jinja2 calls it by this name
        self.generic_visit(node)
        return nodes.Filter(
            nodes.List(node.nodes, lineno=node.lineno), "join", [], [], None, None, lineno=node.lineno
        )


def _plus(left: Any, right: Any) -> Any:
    if isinstance(left, str | list | tuple):
        _refuse_long(len(left) + len(right))
    return left + right


def _times(left: Any, right: Any) -> Any:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str | list | tuple) and isinstance(other, int):
            _refuse_long(len(one) * other)
    if isinstance(left, int) and isinstance(right, int):
        _refuse_large(left.bit_length() + right.bit_length())
    return left * right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        _refuse_large(left.bit_length() * right)
    return left**right


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        _refuse_wide(left)
    return operator.mod(left, right)


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    _refuse_wide(str(value))
    return do_format(value, *args, **kwargs)


@pass_eval_context
def _join(eval_ctx: Any, value: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
    found = list(value)
    _refuse_long(len(found) * len(str(d)) + sum(len(each) for each in found if isinstance(each, str)))
    return sync_do_join(eval_ctx, found, d, attribute)


@pass_eval_context
def _replace(eval_ctx: Any, s: Any, old: Any, new: Any, count: int | None = None) -> str:
    text = str(s)
    _refuse_long(len(text) + text.count(str(old)) * len(str(new)))
    return do_replace(eval_ctx, s, old, new, count)


def _round(value: Any, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > MOST_DIGITS:
        raise OverflowError(f"round to at most {MOST_DIGITS} digits")
    return do_round(value, precision, method)


def _refuse_long(length: int) -> None:
    if length > MAX_OUTPUT:
        raise OverflowError(f"it would make a text or list of more than {MAX_OUTPUT:,} characters or items")


def _refuse_large(bits: int) -> None:
    if bits > MOST_BITS:
        raise OverflowError(f"it would make a number of more than {MOST_BITS:,} bits")


def _refuse_wide(text: str) -> None:
    if _WIDE.search(text):
        raise OverflowError("a format's width and precision are numbers up to 999")
