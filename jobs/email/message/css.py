"""Styles of a mail's HTML: the rules of its `<style>` elements are written into the elements that they fit.

css-inline does that, and parses HTML as browsers do. It dies of a tree of some thousands of levels, and its
time and memory grow with elements times rules, so what it gets is bounded before. A count that is too low
could kill a worker: only markup that all parsers read alike is counted, and other mails keep their styles.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from packmule.jobs.email.message.tree import TreeSize, Unfit

if TYPE_CHECKING:
    from css_inline import CSSInliner

MAX_HTML = 1_000_000
MAX_GROWTH = 50_000_000
"""Elements times characters of CSS, since each rule could fit each element."""

MAX_WORK = 500_000_000
"""Elements times declarations times names of properties."""

MAX_DECLARATIONS = 100
"""Semicolons within one tag."""

_TAG_END = (
    r"(?P<{0}>(?:[ \t\n\f\r]++[^ \t\n\f\r\"'<>/=]++"
    r"(?:[ \t\n\f\r]*+=[ \t\n\f\r]*+(?:\"[^\"]*+\"|'[^']*+'|[^ \t\n\f\r\"'<>=`]++))?+){{0,100}}+)"
    r"[ \t\n\f\r]*+/?>"
)
_MARKUP = re.compile(
    rf"<(?:(?P<raw>style|script|title)(?=[ \t\n\f\r>]){_TAG_END.format('options')}"
    r"(?:(?P<content>.*?)</(?P=raw)[ \t\n\f\r]*+>)?+"
    rf"|(?P<start>[a-z][a-z0-9:-]*+){_TAG_END.format('attributes')}"
    r"|/(?P<end>[a-z][a-z0-9:-]*+)[ \t\n\f\r]*+>"
    r"|!--(?:-?>|.*?--!?>)"
    r"|!\[(?P<condition>if[^<>\[\]]*+|endif)\]>"
    r"|!doctype[^<>]*+>"
    r"|(?P<other>[a-z/!?]))",
    re.IGNORECASE | re.DOTALL | re.ASCII,  # or else the K of kelvins is a k
)
_IGNORED = re.compile(r"\sdata-css-inline\s*=\s*[\"']?ignore", re.IGNORECASE | re.ASCII)
_MEDIA = re.compile(r"\smedia\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|(\S+))", re.IGNORECASE | re.ASCII)
_DOCTYPE = re.compile(r"\s*+(<!doctype[^<>]*+>)", re.IGNORECASE)
_EMPTY = re.compile(r"<style[^<>]*></style>\n?")


class Inlined(NamedTuple):
    """A mail's HTML, and why its styles are where they were, "" if they are inlined or there are none."""

    html: str
    left: str = ""


def inlined(html: str) -> Inlined:
    """`html` with its styles inlined, or as it is if it has none, or if that would be too much.

    What only a `<style>` can say, such as media queries and `:hover`, stays in it. So does all of one that
    has `data-css-inline="ignore"`, or that is for other media. Nothing is loaded. Raises nothing.

    >>> inlined("<style>p { color: red }</style><p>Hello").html
    '<html><head></head><body><p style="color: red;">Hello</p></body></html>'
    """
    try:
        prepared = _prepared(html) if "<style" in html.lower() else ""
        return Inlined(_finished(_inliner().inline(prepared), html) if prepared else html)
    except Unfit as reason:
        return Inlined(html, str(reason))
    except ValueError as error:  # css-inline's, or half a character, which no mail can have
        return Inlined(html, f"its CSS or a style attribute can't be read: {error}"[:200])


@lru_cache(maxsize=1)
def _inliner() -> CSSInliner:
    from css_inline import CSSInliner  # noqa: PLC0415  most mails have no styles

    return CSSInliner(
        keep_style_tags=True,
        remove_inlined_selectors=True,
        keep_link_tags=True,
        load_remote_stylesheets=False,
    )


def _prepared(html: str) -> str:
    """`html` for css-inline, "" if nothing is to be inlined. Raises `Unfit`."""
    if len(html) > MAX_HTML:
        raise Unfit(f"it has more than {MAX_HTML:,} characters")
    size, css, pieces, at = TreeSize(), list[str](), list[str](), 0
    for found in _MARKUP.finditer(html):
        if tag := found["start"]:
            if found["attributes"].count(";") > MAX_DECLARATIONS:
                raise Unfit(f"a tag has more than {MAX_DECLARATIONS} declarations")
            size.start(tag.lower())
        elif tag := found["end"]:
            size.end(tag.lower())
        elif tag := found["raw"]:
            _check_end(tag, found["content"])
            size.alone()
            if tag.lower() == "style" and not _IGNORED.search(found["options"]):
                if _is_for_screens(found["options"]):
                    css.append(found["content"])
                else:
                    pieces += html[at : found.end("raw")], ' data-css-inline="ignore"'
                    at = found.end("raw")
        elif condition := found["condition"]:  # Outlook's, as HTML's parsers keep it
            comment = (
                f"<!--<![{condition}]-->" if condition.lower() == "endif" else f"<!--[{condition}]><!-->"
            )
            pieces += html[at : found.start()], comment
            at = found.end()
        elif found["other"]:
            line = html.count("\n", 0, found.start()) + 1
            raise Unfit(f"line {line} of the HTML is not well-formed: {html[found.start() :][:30]!r}")
    if not css:
        return ""
    _check_work("\n".join(css), size.elements)
    return "".join([*pieces, html[at:]])


def _check_end(tag: str, content: str | None) -> None:
    is_clear = content is not None and not re.search(rf"</{tag}[\s/]", content, re.IGNORECASE)
    if not is_clear or (tag.lower() == "script" and "<!--" in (content or "")):
        raise Unfit(f"where its <{tag}> ends is not clear")


def _is_for_screens(options: str) -> bool:
    media = _MEDIA.search(options)
    return media is None or "".join(media.groups("")).strip().lower() in {"", "all", "screen"}


def _check_work(css: str, elements: int) -> None:
    """Raise `Unfit` if the rules of `css` could take too long, or make too much, in so many elements."""
    pieces = [piece.strip() for piece in re.split(r"[;{}]", css)]
    # Each declaration is compared with those of all properties that the element has, of other names.
    names = len(pieces) if "\\" in css else len({piece.rpartition(":")[0] or piece for piece in pieces})
    if elements * names * len(pieces) > MAX_WORK or elements * len(css) > MAX_GROWTH:
        raise Unfit(f"it has {len(css):,} characters of CSS for {elements:,} elements")


def _finished(result: str, html: str) -> str:
    """What css-inline made, with the document type as it was, and without empty styles. Raises `Unfit`."""
    if len(result) > MAX_HTML:
        raise Unfit(f"it would have more than {MAX_HTML:,} characters then")
    result = _EMPTY.sub("", result)
    doctype = _DOCTYPE.match(html)
    return doctype[1] + result.removeprefix("<!DOCTYPE html>") if doctype else result
