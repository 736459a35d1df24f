"""Puts the questions to the allowance into a parsed template: at each turn, and around what makes values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from jinja2 import Environment, nodes
from jinja2.visitor import NodeTransformer

_TURNS = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)
_LONG_BRANCH = 200
"""Characters of text from which on a branch of an `if` is counted where it is taken."""


def metered(template: nodes.Template, environment: Environment) -> nodes.Template:
    """`template` with a filter `_tick` at the begin of each body, and `_made`, `_looked` and `_concat`."""
    _Metering().visit(template)
    template.body.insert(0, _tick(_own_text(template.body), template.lineno))
    template.set_environment(environment)
    return template


class _Metering(NodeTransformer):
    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if isinstance(node, _TURNS):
            node.body.insert(0, _tick(_own_text(node.body), node.lineno))
            if isinstance(node, nodes.For) and node.else_:
                node.else_.insert(0, _tick(_own_text(node.else_), node.lineno))
        elif isinstance(node, nodes.If):
            for branch in (node.body, node.else_):
                if (size := _own_text(branch)) > _LONG_BRANCH:
                    branch.insert(0, _tick(size, node.lineno))
        node = super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict) and getattr(node, "ctx", "load") == "load":
            return _filtered(cast("nodes.Expr", node), "_made")
        if isinstance(node, nodes.Concat):
            return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_concat")
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            return _filtered(node, "_made")
        if isinstance(node, nodes.Compare):
            node.expr = _filtered(node.expr, "_looked")
            for operand in node.ops:
                operand.expr = _filtered(operand.expr, "_looked")
        elif isinstance(node, nodes.For) and node.test is not None:
            node.iter = _filtered(cast("nodes.Expr", node.iter), "_counted")
        return node


def _own_text(body: Iterable[nodes.Node]) -> int:
    """The characters of text in `body`, but for what is counted by itself."""
    total = 0
    for node in body:
        if isinstance(node, nodes.TemplateData):
            total += len(node.data)
        elif isinstance(node, nodes.If):
            total += sum(
                size for branch in (node.body, node.else_) if (size := _own_text(branch)) <= _LONG_BRANCH
            )
            total += _own_text(node.elif_)
        elif not isinstance(node, _TURNS):
            total += _own_text(node.iter_child_nodes())
    return total


def _tick(chars: int, lineno: int) -> nodes.ExprStmt:
    return nodes.ExprStmt(_filtered(nodes.Const(chars, lineno=lineno), "_tick"), lineno=lineno)


def _filtered(node: nodes.Expr, name: str, args: Sequence[nodes.Expr] = ()) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
