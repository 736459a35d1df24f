"""Lua scripts kept in files: read once, called by their hash, sent whole only where the server lacks them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError


class Script:
    """The script `<package>/lua/<name>.lua`, callable in one round trip.

    >>> claim = Script("worker", "finish_and_claim")
    >>> claim(client, keys=["a"], args=[1])  # doctest: +SKIP
    """

    def __init__(self, package: str, name: str) -> None:
        self.source = resources.files(package).joinpath("lua", f"{name}.lua").read_text()
        # The server names scripts by this hash; it guards nothing.
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(
        self,
        client: Redis,
        keys: Sequence[str] = (),
        args: Sequence[Any] = (),
        before: Sequence[Sequence[Any]] = (),
    ) -> Any:
        """Run it and return its reply. Redis's own errors are raised as they are.

        `before` are commands that are sent ahead of it in the same round trip.
        """
        call = (len(keys), *keys, *args)
        try:
            if not before:
                return client.evalsha(self.sha, *call)
            with client.pipeline(transaction=False) as pipeline:
                for command in before:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                pipeline.execute_command("EVALSHA", self.sha, *call)  # type: ignore[no-untyped-call]
                return pipeline.execute()[-1]
        except NoScriptError:
            return client.eval(self.source, *call)
