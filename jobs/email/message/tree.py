"""How deep and large the tree of a piece of HTML can be, counted without building it."""

from __future__ import annotations

from collections.abc import Mapping

from packmule.errors import UsageError

MAX_DEPTH = 200
"""Elements that are open at once. The tree has up to twice as many levels."""

MAX_ELEMENTS = 20_000
"""The tree has up to three times as many, with those of tables that nobody writes."""

_VOID = frozenset(["area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"])
_FORMATTING = frozenset(
    ["a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"]
)
"""Elements that a parser opens again in each block that follows, until they are closed."""

_ODD = frozenset(
    ["frameset", "iframe", "math", "noembed", "noframes", "noscript", "plaintext", "select", "svg",
     "template", "textarea", "xmp"]
)  # fmt: skip
"""Elements in which markup means something else."""

_ENDED: Mapping[str, frozenset[str]] = {
    "p": frozenset(),
    **dict.fromkeys(["li", "/li"], frozenset(["p"])),
    **dict.fromkeys(["/div", "/ol", "/ul"], frozenset(["li", "p"])),
}
"""What a tag may end that is inside of the element that it ends. Those without an end tag are often these."""


class Unfit(UsageError, ValueError):
    """The tree of a mail's HTML would be too deep or large, or is not the same for all parsers."""


class TreeSize:
    """Counts elements, and those that are open, never too few: what an end tag may not end stays open."""

    def __init__(self) -> None:
        self.elements = 0
        self._open: list[str] = []
        self._formatting = 0

    def alone(self) -> None:
        """Count an element that has no others inside. Raises `Unfit`."""
        self.elements += 1 + self._formatting
        if self.elements > MAX_ELEMENTS:
            raise Unfit(f"it has more than {MAX_ELEMENTS:,} elements")

    def start(self, tag: str) -> None:
        """Count a start tag. Raises `Unfit`."""
        if tag in _ODD:
            raise Unfit(f"it has <{tag}>")
        if tag in _ENDED:
            self._close(tag, _ENDED[tag])
        self.alone()
        if tag not in _VOID:
            self._open.append(tag)
            self._formatting += tag in _FORMATTING
            if len(self._open) > MAX_DEPTH:
                raise Unfit(f"it has more than {MAX_DEPTH} nested elements, or elements without an end tag")

    def end(self, tag: str) -> None:
        """Count an end tag."""
        self.elements += self._formatting + (tag in {"br", "p"})  # which are elements also without a start
        self._close(tag, _ENDED.get(f"/{tag}", frozenset()))

    def _close(self, tag: str, ended: frozenset[str]) -> None:
        """Take the innermost `tag` for closed if all inside of it are of `ended`."""
        at = len(self._open) - 1
        while at >= 0 and self._open[at] in ended and self._open[at] != tag:
            at -= 1
        if at >= 0 and self._open[at] == tag:
            del self._open[at:]
            self._formatting -= tag in _FORMATTING
