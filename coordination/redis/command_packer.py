"""Encoding commands for the server so that a signal at any moment is safe."""

from __future__ import annotations

from typing import Any

import hiredis
from redis.connection import HiredisRespSerializer
from redis.exceptions import DataError

_write = hiredis.pack_command
_TEXTS = frozenset((str, bytes))
_NUMBERS = frozenset((int, float))


class CommandPacker(HiredisRespSerializer):
    """redis-py's packer, except that it passes hiredis nothing but text and bytes.

    For a number, hiredis asks Python for its `repr`, which runs pending signal handlers. If one raises there,
    as Ctrl-C does, hiredis continues with a null pointer and the process dies of a segmentation fault.
    """

    def pack(self, *args: Any) -> list[bytes]:
        """The bytes of one command, such as ("CLIENT SETNAME", b"a") or ("EXPIRE", "key", 60).

        Raises `redis.DataError` for an argument that is neither text, bytes nor a number.
        """
        command, *rest = args  # a command's name may be of two words
        words = command.encode().split() if isinstance(command, str) else command.split()
        try:
            return [pack(*words, *rest)]
        except TypeError as error:
            raise DataError(error) from None


def pack(*args: Any) -> bytes:
    """The bytes of one command whose name is one word, for connections that are written to directly."""
    ready: tuple[Any, ...] = tuple([each if type(each) in _TEXTS else _plain(each) for each in args])
    packed: bytes
    try:
        packed = _write(ready)
    except UnicodeEncodeError:  # an argument of the command line that isn't UTF-8, or a hostile text
        packed = _write(tuple([_as_typed(each) for each in ready]))
    return packed


def protect_all_clients() -> None:
    """Pass hiredis no number of any client of this process, such as one that a job makes for itself.

    A process whose signals raise calls it.
    """
    hiredis.pack_command = lambda cmd: pack(*cmd)


def _plain(value: Any) -> Any:
    if type(value) in _NUMBERS:
        return repr(value)
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def _as_typed(text: Any) -> Any:
    """The bytes for which a text with lone surrogates stands; if there are none, those of no other text."""
    if not isinstance(text, str):
        return text
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")
