"""The pipe from an isolated process to its worker: messages, each preceded by its length."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

import msgspec

READ_BYTES = 1 << 16
"""What a pipe holds. A much larger buffer would be mapped and unmapped for each job."""

_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, Any]).decode


class Receiver:
    """Reads messages from the descriptor `reader`."""

    def __init__(self, reader: int) -> None:
        self.reader = reader
        self.is_over = False
        self._bytes = bytearray()

    def __call__(self) -> list[tuple[str, Any]]:
        """The messages that are complete after one more read."""
        data = os.read(self.reader, READ_BYTES)
        self.is_over = not data
        self._bytes += data
        messages = []
        while len(self._bytes) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._bytes)[0]
            if len(self._bytes) < end:
                break
            messages.append(_decode(self._bytes[_LENGTH.size : end]))
            del self._bytes[:end]
        return messages


class SaidByPipe:
    """Passes on at once what an isolated job says, by `send`, so that its death loses nothing of it."""

    def __init__(self, level: int, send: Callable[[str, bytes], None]) -> None:
        self.level = level
        self._send = send

    def line(self, line: bytes) -> None:
        """Take a line of its log."""
        self._send("line", line)

    def chunk(self, chunk: bytes) -> None:
        """Take a chunk of its output."""
        self._send("chunk", chunk)


def send(writer: int, kind: str, values: object) -> None:
    """Write a message to the descriptor `writer`."""
    message = _encode((kind, values))
    data = memoryview(_LENGTH.pack(len(message)) + message)
    while data:
        data = data[os.write(writer, data) :]
