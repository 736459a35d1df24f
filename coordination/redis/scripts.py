"""Lua scripts in files: assembled, called by hash, and sent whole only if the server doesn't know them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError, ResponseError

_REQUIRES = re.compile(r"^-- requires: (.+)$", re.MULTILINE)

# Most calls use few of the libraries, and creating their functions takes longer than moving a job.
_LAZY = """\
local lazy = {__index = function(library, name)
  local fill = library[1]
  setmetatable(library, nil)
  fill(library)
  return library[name]
end}
"""


class Script:
    """The script `packmule/<package>/lua/<name>.lua`, callable in one round trip.

    In its head, `-- requires: clock, jobs/queue` names libraries: `lua/lib/clock.lua` of the script's own
    package and `lua/lib/queue.lua` of `packmule.jobs`. A library may require others. Each fills one table,
    which has its name, and does so when a call first uses it.

    >>> claim = Script("worker.process", "finish_and_claim")
    >>> claim(client, keys=["a"], args=[1])  # doctest: +SKIP
    """

    def __init__(self, package: str, name: str) -> None:
        self.source = assembled(package, name)
        # The server identifies scripts by this hash; it protects nothing.
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Redis, keys: Sequence[str] = (), args: Sequence[Any] = ()) -> Any:
        """Run the script; returns its reply. Raises redis-py's errors."""
        command = self.command(keys, args)
        try:
            return _exchange(client, command)
        except NoScriptError:
            return _exchange(client, ("EVAL", self.source, *command[2:]))

    def each(self, client: Redis, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Run the script for each of `calls`, given as keys and arguments, in one round trip.

        Returns the replies in order; a call that failed has redis-py's error in its place.
        """
        replies = self._all(client, calls)
        lacking = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if lacking:
            client.script_load(self.source)
            again = self._all(client, [calls[number] for number in lacking])
            for number, reply in zip(lacking, again, strict=True):
                replies[number] = reply
        return replies

    def _all(self, client: Redis, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        opened: Any = client.pipeline(transaction=False)
        with opened as pipeline:
            for keys, args in calls:
                pipeline.execute_command(*self.command(keys, args))
            return list(pipeline.execute(raise_on_error=False))

    def command(self, keys: Sequence[str], args: Sequence[Any]) -> tuple[Any, ...]:
        """The command that runs the script; it fails with `NoScriptError` if the server lacks it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


def assembled(package: str, name: str) -> str:
    """The text of a script behind all the libraries that it needs, each once."""
    text = _read(package, f"{name}.lua")
    libraries: dict[tuple[str, str], str] = {}
    for each in required(package, text):
        _add(each, libraries)
    return "".join([_LAZY, *libraries.values(), text]) if libraries else text


def required(package: str, text: str) -> list[tuple[str, str]]:
    """The libraries, as package and name, that the head of a Lua file in `package` names."""
    found = []
    for each in ", ".join(_REQUIRES.findall(text)).split(", "):
        room, _, name = each.rpartition("/")
        found.append((room.replace("/", ".") or package, name))
    return found if found != [(package, "")] else []


def _add(library: tuple[str, str], libraries: dict[tuple[str, str], str]) -> None:
    """Add a library behind those that it requires; one that requires itself in the end is an error."""
    if library in libraries:
        if not libraries[library]:
            raise RuntimeError(f"the Lua library {library[1]} requires itself")
        return
    package, name = library
    text = _read(package, f"lib/{name}.lua")
    libraries[library] = ""
    for each in required(package, text):
        _add(each, libraries)
    # The library's table is the one that the script has, so that what it keeps there is kept once.
    filled = text.replace(f"\nlocal {name} = {{}}\n", f"\nlocal {name} = ...\n")
    del libraries[library]
    libraries[library] = f"local {name} = setmetatable({{function(...)\n{filled}end}}, lazy)\n"


@cache
def _read(package: str, file: str) -> str:
    return resources.files(f"packmule.{package}").joinpath("lua", file).read_text()


def _exchange(client: Redis, command: Sequence[Any]) -> Any:
    """Send a command and return its reply; repeat it if the connection is lost.

    It uses the connection directly, because the client's own path costs more than the server's answer.
    """
    pool = client.connection_pool
    connection: Any = pool.get_connection()

    def exchange() -> Any:
        connection.send_packed_command(connection.pack_command(*command))
        return connection.read_response()

    try:
        return connection.retry.call_with_retry(exchange, lambda error: connection.disconnect())
    except ResponseError:
        raise
    except BaseException:
        connection.disconnect()  # a signal's exception may have come between a command and its reply
        raise
    finally:
        pool.release(connection)
