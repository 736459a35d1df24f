"""A channel: a connection to Redis on which a script is sent at one time and its reply read at another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError, ResponseError

from packmule.coordination.clock import clock
from packmule.coordination.redis.backoff import UNAVAILABLE, is_transient, retry_until_available
from packmule.coordination.redis.command_packer import pack
from packmule.coordination.redis.scripts import Script
from packmule.jobs import current

PATIENCE = 60.0
"""Seconds that a job has at least after each attempt to reach Redis."""


class Channel:
    """Runs scripts that are harmless to repeat. The server works while the caller does something else.

    One thread uses it. What interrupts it, such as a job's timeout, closes the connection.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._connection: Any = None
        self._call: tuple[Script, Sequence[str], Sequence[Any]] | None = None
        self.sent_at = float("-inf")
        """When the script was sent last, by the clock that goes on while this process is frozen."""

    @property
    def has_unread(self) -> bool:
        """Whether a script was sent whose reply was not read."""
        return self._call is not None

    def send(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> None:
        """Send a script without waiting. If that fails, `receive` sends it again."""
        self._call = (script, keys, args)
        self.sent_at = clock()
        try:
            if self._connection is None:
                self._connection = self._client.connection_pool.get_connection()
            command = pack(*script.command(keys, args))
            self._connection.send_packed_command((command,), check_health=False)
        except (*UNAVAILABLE, OSError):
            self._drop()
        except BaseException:
            self._drop()
            raise

    def receive(self) -> Any:
        """The reply to what was sent, however long Redis is away. Raises what isn't transient."""
        if self._call is None:
            raise RuntimeError("nothing was sent")
        call = self._call
        try:
            reply = self._read() if self._connection is not None else NoScriptError()
        except BaseException:
            self._drop()
            raise
        if isinstance(reply, NoScriptError):
            reply = retry_until_available(lambda: self._again(*call))
        self._call = None
        return reply

    def close(self) -> None:
        """Give the connection back."""
        if self._call is not None:
            self._drop()
        elif self._connection is not None:
            self._client.connection_pool.release(self._connection)
            self._connection = None

    def _again(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Call a script in full. A job must not end for its timeout while what it did is not recorded."""
        current.prolong(PATIENCE)
        self.sent_at = clock()
        return script(self._client, keys, args)

    def _read(self) -> Any:
        """The reply, or a `NoScriptError` if the script has to be sent again."""
        try:
            return self._connection.read_response()
        except NoScriptError as error:
            return error
        except (*UNAVAILABLE, OSError):
            self._drop()
            return NoScriptError()
        except ResponseError as error:
            if not is_transient(error):
                raise
            return NoScriptError()

    def _drop(self) -> None:
        """Close a connection whose state is unknown."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._client.connection_pool.release(connection)
