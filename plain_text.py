"""Plain text: what others wrote, made safe to show in a terminal, a log or a page."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNSHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls, of which some begin a terminal's commands; then unseen ones
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\u2028\u2029"  # ends of lines
    "\ud800-\udfff"  # halves of characters, which no output can hold
    "\U000e0000-\U000e0fff]"  # tags: text that nobody sees
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet takes for a formula, as OWASP lists it."""

_PASSWORD = re.compile(r"(://[^:/?#]*):.*@", re.DOTALL)
"""Up to the last @, so that a password with an unescaped @ in it is hidden too."""

_KEY = re.compile(r"\b(ses|postmark|mailgun|sendgrid|resend)://(?:\S*@)?[^@?\s]*(\?[^@\s]*)?")
"""A mail provider's URL, whose key may be all that it has: only its options are shown."""

_SECRET_OPTION = re.compile(
    r"([?&][\w-]*(?:passw|secret|token|signature|api_?key)[\w-]*=)[^&#\s]*", re.IGNORECASE
)

_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def plain(text: object) -> str:
    r"""`text` on one line: control, bidirectional and unseen characters are written out.

    >>> plain("a\x1b[2J\nb\u202e")
    'a\\x1b[2J\\nb\\u202e'
    """
    shown = str(text)
    return shown if shown.isprintable() else _UNSHOWN.sub(_written_out, shown)


def plain_lines(text: str) -> str:
    r"""`text` with its lines kept and each of them plain; for text that can't be taken for lines of ours.

    >>> plain_lines("Traceback:\r\n\tx\x1b[2J")
    'Traceback:\n    x\\x1b[2J'
    """
    return "\n".join(plain(line.expandtabs(4)) for line in text.replace("\r\n", "\n").split("\n"))


def plain_each(lines: Sequence[str]) -> str:
    r"""Many lines, each plain; it costs little if they are.

    >>> plain_each(["a", "b\nc"])
    'a\nb\\nc'
    """
    if "".join(lines).isprintable():
        return "\n".join(lines)
    return "\n".join(map(plain, lines))


def one_line(text: str, most: int) -> str:
    r"""At most `most` characters of `text` on one line, with one space for what isn't printable.

    >>> one_line("550 5.1.1\r\n\x1b[2Jno such user", 20)
    '550 5.1.1 [2Jno such'

    Cut a long text before: four times `most` is enough.
    """
    if not text.isprintable():
        text = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(text.split())[:most]


def plain_cell(text: str) -> str:
    """A text for a cell of CSV, with a `'` in front if a spreadsheet would take it for a formula.

    >>> plain_cell("=1+1"), plain_cell("1+1")
    ("'=1+1", '1+1')
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def plain_json(text: str) -> str:
    r"""The same JSON with such characters as JSON's escapes; line ends between its values stay.

    >>> plain_json('{"a": "\x9b2J"}')
    '{"a": "\\u009b2J"}'
    """
    return _UNSHOWN.sub(_escaped, text)


def mask(url: str) -> str:
    """`url` without its password: `mask("redis://:s3cret@host/0") == "redis://:***@host/0"`."""
    hidden = _PASSWORD.sub(r"\1:***@", _KEY.sub(r"\1://***\2", url))
    return _SECRET_OPTION.sub(r"\1***", hidden)


def _written_out(found: re.Match[str]) -> str:
    character = found[0]
    if character in _NAMES:
        return _NAMES[character]
    code = ord(character)
    if code < 0x100:  # noqa: PLR2004  as Python writes them
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004


def _escaped(found: re.Match[str]) -> str:
    if found[0] == "\n":
        return "\n"
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
