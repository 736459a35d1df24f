"""Headers of a mail as bytes on the wire: folded, and encoded where they are not ASCII.

They are written by hand because `email.policy` takes two milliseconds a mail, and because its folding drops
the spaces between encoded and plain words. What is not ASCII is encoded as a whole, spaces included.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterator, Sequence
from functools import lru_cache

from packmule.jobs.email.letter import InvalidMessage, Mailbox
from packmule.jobs.email.message.addresses import PHRASE, UNFIT, quoted

WIDTH = 76
"""Characters of a line, from which on it is folded; the most that a line with encoded words may have."""

MAX_WORD = 900
"""Characters of a word without spaces that is still sent plain; a line has at most 998."""

MAX_PLAIN_NAME = 60
"""Characters of a display name that is sent plain or in quotes; a longer one is encoded, so that it folds."""

FOLD = "\r\n "

_PLAIN = re.compile(r"[!-~]+(?: [!-~]+)*")
_LONG = re.compile(rf"[^ ]{{{MAX_WORD},}}")
_WRAPPING = len("=?utf-8?q??=")
_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/ "
"""What an encoded word may have in any place, a name's included; a space becomes a _."""
_QUOTED = {chr(byte): chr(byte) for byte in _SAFE} | {" ": "_"}


def checked(what: str, text: str) -> str:
    """`text`, if it can be in a header: refusing line ends keeps a value from becoming a second header.

    Raises `InvalidMessage`.
    """
    if unfit := UNFIT.search(text):
        raise InvalidMessage(
            f"the {what} contains {unfit.group()!r} (at {unfit.start() + 1}); a header is one line of text"
        )
    return text


def of_text(name: str, value: str) -> str:
    """The header `name` with any text, such as a subject.

    >>> of_text("Subject", "Grüße")
    'Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?='
    """
    line = f"{name}: {value}"
    if _is_plain(value) and (len(line) <= WIDTH or not _LONG.search(value)):
        return line if len(line) <= WIDTH else _folded(line, len(name) + 2)
    return f"{name}: {encoded(value, len(name) + 2)}" if value else line


def of_tokens(name: str, tokens: Sequence[str], separator: str = "") -> str:
    """The header `name` with ASCII tokens that are never encoded, such as URLs, each on a line if needed."""
    joined = f"{name}: {f'{separator} '.join(tokens)}"
    return joined if len(joined) <= WIDTH else f"{name}: {f'{separator}{FOLD}'.join(tokens)}"


def of_addresses(name: str, people: Sequence[Mailbox]) -> str:
    """The header `name` with addresses; a line is never broken within one, unless its name is encoded.

    >>> of_addresses("To", [Mailbox("Doe, Ada", "ada@example.org"), Mailbox("", "bob@example.org")])
    'To: "Doe, Ada" <ada@example.org>, bob@example.org'
    """
    lines, line = [], f"{name}:"
    for number, mailbox in enumerate(people):
        is_last = number == len(people) - 1
        shown = _shown(mailbox, len(line) + 1) if number == 0 else _shown(mailbox, 1)
        first, fold, rest = shown.partition("\r\n")
        if number and len(line) + 1 + len(first) + (not is_last) > WIDTH:
            lines.append(line)
            line = ""
        line += f" {first}"
        if fold:
            lines.extend([line, *rest.split("\r\n")])
            line = lines.pop()
        line += "" if is_last else ","
    return "\r\n".join([*lines, line])


def encoded(text: str, used: int) -> str:
    """`text` in encoded words (RFC 2047), one a line; `used` is what the first line already has."""
    raw = text.encode()
    to_quote = len(raw.translate(None, _SAFE))
    if 2 * to_quote <= len(raw) / 3:
        return FOLD.join(f"=?utf-8?q?{word}?=" for word in _quoted_words(text, used))
    return FOLD.join(f"=?utf-8?b?{word}?=" for word in _base64_words(raw, used))


@lru_cache(maxsize=256)
def _shown(mailbox: Mailbox, used: int) -> str:
    """An address as headers have it."""
    name, spec = mailbox
    if not name:
        return spec
    if len(name) <= MAX_PLAIN_NAME and name.isascii() and "=?" not in name:
        return f"{name if PHRASE.fullmatch(name) else quoted(name)} <{spec}>"
    words = encoded(name, used)
    last = len(words) - words.rfind("\n") - 1
    fits = last + len(spec) + 4 + (0 if "\n" in words else used) <= WIDTH
    return f"{words} <{spec}>" if fits else f"{words}{FOLD}<{spec}>"


def _is_plain(value: str) -> bool:
    return _PLAIN.fullmatch(value) is not None and "=?" not in value


def _folded(line: str, head: int) -> str:
    """`line` broken before spaces, which begin the next lines; `head` characters at its start stay whole."""
    lines = []
    while len(line) > WIDTH:
        at = line.rfind(" ", head, WIDTH + 1)
        if at < 0:
            at = line.find(" ", max(WIDTH, head))
        if at < 0:
            break
        lines.append(line[:at])
        line, head = line[at:], 1
    return "\r\n".join([*lines, line])


def _room(used: int) -> int:
    return max(WIDTH - _WRAPPING - used, 12)


def _quoted_words(text: str, used: int) -> Iterator[str]:
    """Quoted-printable words of whole characters."""
    word: list[str] = []
    room, size = _room(used), 0
    for character in text:
        piece = _QUOTED.get(character) or "".join(f"={byte:02X}" for byte in character.encode())
        if size + len(piece) > room:
            yield "".join(word)
            room, size, word = _room(1), 0, []
        word.append(piece)
        size += len(piece)
    yield "".join(word)


def _base64_words(raw: bytes, used: int) -> Iterator[str]:
    """Base64 words of whole characters: a word never ends between the bytes of one."""
    start, room = 0, _room(used)
    while start < len(raw):
        end = start + room // 4 * 3
        while end < len(raw) and raw[end] & 0xC0 == 0x80:  # noqa: PLR2004  the bytes that follow the first of a character
            end -= 1
        yield b2a_base64(raw[start:end], newline=False).decode()
        start, room = end, _room(1)
