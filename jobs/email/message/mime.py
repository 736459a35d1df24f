"""The parts of a mail as bytes: texts, files, and what holds several, each with its own headers."""

from __future__ import annotations

import mimetypes
import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote

from packmule.jobs.email.letter import Attachment, InvalidMessage
from packmule.jobs.email.message.addresses import quoted
from packmule.jobs.email.message.headers import FOLD, checked

MAX_LINE = 998
"""Bytes of a line, its end not counted, that every server takes."""

MAX_FILE_NAME = 255

_PRINTABLE = bytes([9, 10, 13, *range(32, 127)])
_LINE = 76
_SEGMENT = 56
_SEGMENTS = re.compile(r"(?:%..|[^%]){1,18}")
_QUOTED_PRINTABLE_SHARE = 6
"""Up to one in so many bytes needs quoting, quoted-printable is the shorter one."""


def text_part(subtype: str, text: str) -> list[bytes]:
    """A text with its headers: as it is if it is ASCII with short lines, else encoded to ASCII.

    Its lines end with CRLF, also the last. Raises `InvalidMessage` for half a character.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        data = text.replace("\n", "\r\n").encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(
            f"the {'text' if subtype == 'plain' else 'HTML'} contains {error.object[error.start]!r}, "
            "a lone surrogate, which is half of a character"
        ) from None
    if not data.endswith(b"\r\n"):
        data += b"\r\n"
    others = len(data.translate(None, _PRINTABLE))
    if not others and max(map(len, data.split(b"\r\n"))) <= MAX_LINE:
        encoding, body = "7bit", data
    elif others * _QUOTED_PRINTABLE_SHARE <= len(data):
        encoding, body = "quoted-printable", b2a_qp(data)
    else:
        encoding, body = "base64", _base64(data)
    head = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return [head.encode(), body]


def file_part(attachment: Attachment) -> list[bytes]:
    """A file with its headers. Raises `InvalidMessage` if its name can't be in a header."""
    return [_file_head(attachment.name, attachment.cid), _base64(attachment.content)]


def multipart(subtype: str, boundary: str, parts: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Several parts in one; `boundary` is a line that none of them has."""
    pieces = [f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"\r\n'.encode()]
    between = f"\r\n--{boundary}\r\n".encode()
    for part in parts:
        pieces.append(between)
        pieces.extend(part)
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return pieces


@lru_cache(maxsize=64)
def _file_head(name: str, cid: str | None) -> bytes:
    checked("attachment's name", name)
    if len(name) > MAX_FILE_NAME:
        raise InvalidMessage(
            f"the attachment's name has {len(name)} characters, over the limit of {MAX_FILE_NAME}: rename it"
        )
    shown = "attachment" if cid is None else "inline"
    lines = [
        f"Content-Type: {media_type(name)}",
        "Content-Transfer-Encoding: base64",
        f"Content-Disposition: {shown};{FOLD}{_file_name(name)}",
        *([] if cid is None else [f"Content-ID: <{cid}>"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _file_name(name: str) -> str:
    """The parameter `filename`, in the encoding of RFC 2231 if it isn't short and ASCII."""
    if name.isascii() and len(name) < _SEGMENT and "=?" not in name:  # which some take for an encoded word
        return f"filename={quoted(name)}"
    escaped = quote(name, safe="")
    if len(escaped) <= _SEGMENT:
        return f"filename*=utf-8''{escaped}"
    pieces = _SEGMENTS.findall(escaped)
    pieces[0] = f"utf-8''{pieces[0]}"
    return f";{FOLD}".join(f"filename*{number}*={piece}" for number, piece in enumerate(pieces))


def media_type(name: str) -> str:
    guessed, encoding = mimetypes.guess_type(name)
    # A compressed table is not a table, and an attached mail must not be encoded as a mail.
    if guessed is None or encoding is not None or guessed.startswith(("message/", "multipart/")):
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    return guessed


def _base64(data: bytes) -> bytes:
    whole = b2a_base64(data, newline=False)
    if len(whole) <= _LINE:
        return whole + b"\r\n"
    lines = [whole[start : start + _LINE] for start in range(0, len(whole), _LINE)]
    lines.append(b"")
    return b"\r\n".join(lines)
