"""Jinja2 with an allowance: what a template can reach is listed, and what it takes is counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateNotFound
from jinja2.lexer import Token, TokenStream
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Cycler, Joiner, missing

from packmule.jobs.email.templating.allowance import (
    PLAIN,
    TEXTS,
    OverBounds,
    compiling,
    cost,
    made,
    refuse_long,
    spend,
    weigh,
)
from packmule.jobs.email.templating.filters import NAMES, SUBJECT_NAMES, filters, tests
from packmule.jobs.email.templating.formats import OPERATORS
from packmule.jobs.email.templating.metering import metered
from packmule.jobs.email.templating.values import CALLED, Method, attribute, namespace, pairs

MAX_SUBJECT = 1_000
"""The most characters of a subject that is a template."""

MAX_SOURCE = 500_000
MAX_TOKENS = 30_000
"""The most words and signs of one template: nothing interrupts Python while it compiles."""

GET_TEMPLATE = 20
"""Steps that it takes to look whether a template's file has changed."""

_DIGITS = re.compile(r"[0-9a-fA-F_]{4000}")

_SUBJECT_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.Name, nodes.Const, nodes.Getattr,
    nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.CondExpr, nodes.Compare, nodes.Operand,
    nodes.Concat, nodes.BinExpr, nodes.UnaryExpr, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair,
    nodes.Keyword,
)  # fmt: skip


@pass_context  # which also keeps Jinja2 from computing constants while it compiles
def _finalize(context: Context, value: Any) -> Any:
    """A value that is shown."""
    kind = type(value)
    if kind in TEXTS:
        spend(1, len(value))
    elif kind in PLAIN:
        spend(1, 20)
    elif isinstance(value, Undefined):
        return value
    elif isinstance(value, list | tuple | dict):
        size = weigh(value)
        refuse_long(size)
        spend(1 + (size >> 3), size)
    elif isinstance(value, complex):
        raise OverBounds("a template can't show a root of a negative number")
    else:
        hint = "; add |list or |join" if isinstance(value, Iterator) else ""
        raise OverBounds(f"a template can't show {kind.__name__}{hint}")
    return value


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox that a template can neither leave nor hold."""

    intercepted_binops = frozenset(OPERATORS)

    def __init__(self, **options: Any) -> None:
        super().__init__(undefined=StrictUndefined, optimized=False, finalize=_finalize, **options)
        self.filters: dict[str, Any] = filters(NAMES)
        self.tests: dict[str, Any] = tests()
        self.globals = {"range": safe_range, "dict": pairs, "namespace": namespace, "cycler": Cycler,
                        "joiner": Joiner}  # fmt: skip
        self.binop_table = dict(OPERATORS)

    def source(self, name: str) -> str:
        """The text of the template `name`. Raises `TemplateNotFound`."""
        if self.loader is None:
            raise TemplateNotFound(name)
        return self.loader.get_source(self, name)[0]

    def getattr(self, obj: Any, attribute_name: str) -> Any:
        """`obj.name`: one of its few methods, or else its item."""
        found = attribute(obj, attribute_name)
        if found is not missing:
            return found
        if isinstance(obj, Undefined):
            str(obj)  # which says what is not given
        try:
            return obj[attribute_name]
        except (TypeError, LookupError, AttributeError):
            return self._absent(obj, attribute_name)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[item]`: its item, or else one of its few methods."""
        if not isinstance(argument, str | int):
            spend(weigh(argument))
        if isinstance(obj, Undefined):
            str(obj)
        try:
            return obj[argument]
        except (TypeError, LookupError, AttributeError):
            found = attribute(obj, argument) if isinstance(argument, str) else missing
            return self._absent(obj, argument) if found is missing else found

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  as Jinja2 has it
        """Call what a template may call."""
        kwargs.pop("_loop_vars", None), kwargs.pop("_block_vars", None)  # Jinja2's, for what takes a context
        spend(1)
        if type(__obj) is Method:
            for each in (*args, *kwargs.values()):
                spend(cost(each))
            return made(__obj.function(__obj.value, *args, **kwargs))
        if isinstance(__obj, Undefined):
            return __obj()
        is_listed = isinstance(__obj, LoopContext) or (
            isinstance(__obj, Macro) and not (__obj.catch_varargs or __obj.catch_kwargs)
        )
        for name, each in (*((None, each) for each in args), *kwargs.items()):
            if isinstance(each, list | tuple | dict) or not (is_listed or name == "caller"):
                spend(weigh(each) >> 3)
        if isinstance(__obj, CALLED):
            return __context.call(__obj, *args, **kwargs)
        if any(__obj is known for known in __self.globals.values()):
            return made(__obj(*args, **kwargs))
        raise SecurityError(f"{type(__obj).__name__} can't be called")

    def get_template(self, name: Any, parent: str | None = None, globals: Any = None) -> Template:
        """The template `name`, from the cache unless its file has changed."""
        spend(GET_TEMPLATE)
        if not isinstance(name, str):
            raise OverBounds("the name of a template must be text")
        return super().get_template(name, parent, globals)

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        """Jinja2's, with time of its own."""
        with compiling():
            return super().compile(*args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The value of `left operator right`, within bounds."""
        return self.binop_table[operator](left, right)

    def _absent(self, obj: Any, name: Any) -> Any:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"{name!r:.80} of {type(obj).__name__} is not for templates")
        return self.undefined(obj=obj, name=name)

    def _tokenize(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> TokenStream:
        if len(source) > MAX_SOURCE:
            raise OverBounds(f"a template has at most {MAX_SOURCE:,} characters")
        if _DIGITS.search(source):
            raise OverBounds("it has a number with thousands of digits")
        return TokenStream(_few(super()._tokenize(source, name, filename, state)), name, filename)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return metered(super()._parse(source, name, filename), self)


class SubjectEnvironment(BoundedEnvironment):
    """For subjects, which come with the job: expressions and `if`, and filters that make nothing large."""

    def __init__(self) -> None:
        super().__init__(autoescape=False)
        self.filters = filters(SUBJECT_NAMES)
        self.globals.clear()

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SUBJECT:
            raise OverBounds(f"a subject that is a template has at most {MAX_SUBJECT:,} characters")
        tree = ImmutableSandboxedEnvironment._parse(self, source, name, filename)
        for node in tree.find_all(nodes.Node):
            if not isinstance(node, _SUBJECT_NODES):
                raise TemplateSyntaxError(
                    f"a subject may not use {type(node).__name__.lower()}: use variables, filters and if",
                    node.lineno,
                )
        return metered(tree, self)


def _few(tokens: TokenStream) -> Iterator[Token]:
    for number, token in enumerate(tokens):
        if number > MAX_TOKENS:
            raise OverBounds(f"a template has at most {MAX_TOKENS:,} words and signs; include parts of it")
        yield token
