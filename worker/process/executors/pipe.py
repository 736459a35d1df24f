"""The pipe between an isolated process and its worker: messages, each preceded by its length."""

from __future__ import annotations

import _socket  # of whose sockets `socket`'s make objects, which touches much memory
import os
import struct
from collections.abc import Callable
from select import POLLIN, poll
from typing import Any

import msgspec

from packmule.worker.process.claimed import Claimed

READ_BYTES = 1 << 16
"""What a pipe holds. A much larger buffer would be mapped and unmapped for each job."""

MOST_BYTES = 1 << 28
"""The longest message that a worker accepts: the process that sends it may be in a stranger's hands."""

_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, Any]).decode
_decode_call = msgspec.msgpack.Decoder(tuple[Claimed, int | None]).decode


def pipe() -> tuple[int, int]:
    """The two ends of a new pipe, each of which reads what is written to the other."""
    one, other = _socket.socketpair()
    return one.detach(), other.detach()


class Receiver:
    """Reads messages from the descriptor `reader`."""

    def __init__(self, reader: int) -> None:
        self.reader = reader
        self.is_over = False
        self._bytes = bytearray()
        self._poll = poll()
        self._poll.register(reader, POLLIN)

    def has_arrived(self, seconds: float) -> bool:
        """Whether there is something to read, or it is over, within `seconds`."""
        return bool(self._poll.poll(seconds * 1000))

    def __call__(self) -> list[tuple[str, Any]]:
        """The messages that are complete after one more read. Raises `ValueError` for what is none."""
        try:
            data = os.read(self.reader, READ_BYTES)
        except ConnectionResetError:  # it died before it had read all
            data = b""
        self.is_over = not data
        self._bytes += data
        messages = []
        while len(self._bytes) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._bytes)[0]
            if end > MOST_BYTES:
                raise ValueError(f"a message of {end:,} bytes")
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
    _write(writer, _encode((kind, values)))


def send_call(writer: int, job: Claimed, fence: int | None) -> None:
    """Write a job, and its fencing token, for a process. Raises `OSError` if that has ended."""
    _write(writer, _encode((job, fence)))


def receive_call(reader: int) -> tuple[Claimed, int | None]:
    """Wait for a job from the worker. Raises `EOFError` if there will be none."""
    (length,) = _LENGTH.unpack(_read(reader, _LENGTH.size))
    return _decode_call(_read(reader, length))


def _write(writer: int, message: bytes) -> None:
    data = memoryview(_LENGTH.pack(len(message)) + message)
    while data:
        data = data[os.write(writer, data) :]


def _read(reader: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = os.read(reader, length - len(data))
        if not more:
            raise EOFError
        data += more
    return data
