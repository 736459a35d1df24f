"""Writes commands for the server in such a way that a signal can come at any moment."""

from __future__ import annotations

from typing import Any

import hiredis
from redis.connection import HiredisRespSerializer
from redis.exceptions import DataError

_TEXTS = frozenset((str, bytes))
_NUMBERS = frozenset((int, float))


class CommandPacker(HiredisRespSerializer):
    """Writes what redis-py's packer writes, but hands hiredis nothing except text and bytes.

    For a number, hiredis asks Python for its `repr`, which runs pending signal handlers. If one raises there,
    as Ctrl-C does, hiredis goes on with a null pointer and the process dies of a segmentation fault.
    """

    def pack(self, *args: Any) -> list[bytes]:
        """The bytes of one command, such as ("CLIENT SETNAME", b"a") or ("EXPIRE", "key", 60).

        Raises `redis.DataError` for an argument that is neither text, bytes nor a number.
        """
        command, *rest = args  # a command's name may be of two words
        words = command.encode().split() if isinstance(command, str) else command.split()
        ready = [each if type(each) in _TEXTS else _plain(each) for each in rest]
        try:
            return [hiredis.pack_command((*words, *ready))]
        except TypeError as error:
            raise DataError(error) from None


def _plain(value: Any) -> Any:
    if type(value) in _NUMBERS:
        return repr(value)
    return bytes(value) if isinstance(value, bytearray | memoryview) else value
