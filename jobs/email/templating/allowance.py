"""What one rendering may take: steps, text and lists made, and processor time, each thread by itself.

Nothing interrupts Python from outside without harm, so a template is compiled to ask here at each turn of a
loop, each call and each filter. What happens between two questions is bounded by the sizes of values.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, thread_time
from typing import Any

from jinja2 import TemplateRuntimeError, Undefined
from markupsafe import Markup

from packmule.errors import UsageError

MAX_OUTPUT = 1_000_000
"""The most characters of one rendered part of a mail, and of any text that is computed for it."""

MAX_MADE = 4 * MAX_OUTPUT
"""The most characters and items that are made on the way to one part."""

MAX_WEIGHT = MAX_OUTPUT
"""The most characters and items within one value, each counted as often as it is in there."""

MAX_STEPS = 1_000_000
"""Turns of loops, calls and the like of one rendering; work on large values counts as several."""

MAX_CPU = 0.5
"""Seconds of processor time of one rendering."""

MOST_BITS = 10_000
"""The size of numbers that a template may make."""

LOOK_EVERY = 64
"""Steps between two looks at the clock."""

TEXTS = (str, Markup)
PLAIN = frozenset([str, Markup, int, float, bool, type(None), range])


class OverBounds(UsageError, TemplateRuntimeError):
    """A template would take more memory or time than a mail may."""


class Allowance:
    """What is left of one rendering's steps, text and time.

    The clock of processor time is slow on some machines, so the other one is asked first: what has not lasted
    so long has not taken so much.
    """

    __slots__ = ("cpu_end", "look_at", "made", "steps", "wall_end")

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.look_at = MAX_STEPS - LOOK_EVERY
        self.made = MAX_MADE
        self.wall_end = self.cpu_end = 0.0

    def look(self) -> None:
        """Raise `OverBounds` if the steps or the time are used up."""
        self.look_at = self.steps - LOOK_EVERY
        if self.steps < 0:
            raise OverBounds(f"it takes more than {MAX_STEPS:,} steps (turns of loops, calls, filters)")
        now = monotonic()
        if now < self.wall_end:
            return
        used = thread_time()
        if not self.cpu_end:
            self.cpu_end = used + MAX_CPU
        elif used > self.cpu_end:
            raise OverBounds(f"it takes more than {MAX_CPU:g} s of processor time")
        self.wall_end = now + self.cpu_end - used


class _Now(threading.local):
    allowance: Allowance | None = None


_now = _Now()


@contextmanager
def allowance() -> Iterator[None]:
    """Give what this thread renders within an allowance of its own."""
    before, _now.allowance = _now.allowance, Allowance()
    try:
        yield
    finally:
        _now.allowance = before


@contextmanager
def compiling() -> Iterator[None]:
    """Leave the time that compiling takes out of this thread's allowance: its own bounds keep it short."""
    began, before = thread_time(), _now.allowance
    try:
        yield
    finally:
        if before is not None and before.cpu_end:
            before.cpu_end += thread_time() - began


def spend(steps: int, made: int = 0) -> None:
    """Take `steps`, and `made` characters or items, from the allowance. Raises `OverBounds` at its end."""
    left = _now.allowance
    if left is None:
        raise OverBounds("nothing is being rendered")
    left.steps -= abs(steps)
    left.made -= abs(made)
    if left.made < 0:
        raise OverBounds(f"it would make texts and lists of more than {MAX_MADE:,} characters or items")
    if left.steps < left.look_at:
        left.look()


def refuse_long(length: int) -> None:
    """Raise `OverBounds` for a text or list that would be too long."""
    if length > MAX_OUTPUT:
        raise OverBounds(f"it would make a text or list of more than {MAX_OUTPUT:,} characters or items")


def weigh(value: Any) -> int:
    """The characters and items in `value`, each as often as it is in there, which is how it is shown.

    Lists may share their items, so a few lines make one that has 2**40 of them. Raises `OverBounds` for what
    is too much, and for what is no data, such as a macro in a list.
    """
    kind = type(value)
    if kind in TEXTS:
        return len(value) + 1
    if kind in PLAIN:
        return 1
    total, stack = 0, [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind in TEXTS:
            total += len(item) + 1
        elif kind in PLAIN:
            total += 1
        elif isinstance(item, dict):
            total += 1
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            total += 1
            stack.extend(item)
        elif isinstance(item, Undefined):
            str(item)  # which says what is not given
        else:
            raise OverBounds(f"a template can't show {kind.__name__}, or put it into a list")
        if total + len(stack) > MAX_WEIGHT:
            raise OverBounds(f"it would make a value of more than {MAX_WEIGHT:,} characters and items")
    return total


def cost(value: Any) -> int:
    """The steps that it takes to go through `value` once."""
    kind = type(value)
    if kind in TEXTS:
        return len(value) >> 6
    if isinstance(value, list | tuple | dict):
        return weigh(value) >> 3
    return len(value) >> 2 if kind is range else 0


def made(value: Any, is_new: bool = True) -> Any:
    """`value`, which was just computed, once it is paid for; with `is_new`, its parts are weighed."""
    if isinstance(value, str):
        spend(1 + (len(value) >> 8), len(value))
        refuse_long(len(value))
    elif isinstance(value, list | tuple | dict):
        spend(1 + (weigh(value) >> 5 if is_new else len(value) >> 3), len(value))
    elif isinstance(value, int):
        spend(1)
        refuse_large(value.bit_length())
    elif isinstance(value, Iterator):
        return counted(value)
    return value


def counted(items: Iterable[Any]) -> Iterator[Any]:
    """`items`, each paid for."""
    for item in items:
        spend(1)
        yield item


def refuse_large(bits: int) -> None:
    """Raise `OverBounds` for a number that would be too large."""
    if bits > MOST_BITS:
        raise OverBounds(f"it would make a number of more than {MOST_BITS:,} bits")
