"""Chains and groups: parts of a flow that run one behind another, or side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packmule.jobs.flow import Flow, Part


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts that a flow takes together; see `chain` and `group`."""

    parts: tuple[Part, ...]

    def enqueue(self, name: str = "", **settings: Any) -> Flow:
        """Start a flow of these parts alone; `settings` are those of `Flow`, and errors those of `start`."""
        from packmule.jobs.flow import Flow  # noqa: PLC0415  it builds on these

        flow = Flow(name, **settings)
        flow.add(self)
        return flow.start()


class Chain(Parts):
    """Parts one behind another."""

    __slots__ = ()


class Group(Parts):
    """Parts side by side."""

    __slots__ = ()


def chain(*parts: Part) -> Chain:
    """Run `parts` one after another: calls, groups or flows. Each begins when the one before is done.

    `result` among the arguments of a call is what the part before it returns.

    >>> from packmule import chain, group, result
    >>> chain(fetch.call("a"), group(parse.call(result), measure.call(result)))  # doctest: +SKIP
    """
    return Chain(parts)


def group(*parts: Part) -> Group:
    """Run `parts` side by side: calls, chains or flows."""
    return Group(parts)
