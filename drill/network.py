"""The drill's network: each pool reaches Redis by a link of its own, which can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
from pathlib import Path

CHUNK = 65_536


class Link:
    """A socket at `path` that leads to the server. While it is cut, what is sent waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path) -> None:
        self.path = path
        self._loop = loop
        self._is_open = asyncio.Event()
        self._is_open.set()

    @property
    def url(self) -> str:
        """Its address, for any Redis client."""
        return f"unix://{self.path}"

    def cut(self) -> None:
        """Cut it, until `restore` is called."""
        self._loop.call_soon_threadsafe(self._is_open.clear)

    def restore(self) -> None:
        """Let everything through again."""
        self._loop.call_soon_threadsafe(self._is_open.set)

    async def passes(self) -> None:
        """Wait until it isn't cut."""
        await self._is_open.wait()


class Network:
    """Links to the server's socket `server`, all in one thread of this process."""

    def __init__(self, server: Path) -> None:
        self._server = server
        # Short, because the address of a socket holds a hundred characters.
        self._folder = Path(tempfile.mkdtemp(prefix="packmule-net-", dir="/tmp"))
        self._loop = asyncio.new_event_loop()
        self._links = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def link(self) -> Link:
        """Open another link."""
        self._links += 1
        link = Link(self._loop, self._folder / f"{self._links}.sock")
        asyncio.run_coroutine_threadsafe(self._serve(link), self._loop).result()
        return link

    def close(self) -> None:
        """Close all links."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self._folder)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, link: Link) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer):
                await link.passes()
                answers, calls = await asyncio.open_unix_connection(self._server)
                with contextlib.closing(calls):
                    ways = [_pass(link, reader, calls), _pass(link, answers, writer)]
                    both = [asyncio.ensure_future(way) for way in ways]
                    try:
                        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for way in both:
                            way.cancel()

        await asyncio.start_unix_server(connected, link.path)


async def _pass(link: Link, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    """Pass bytes on in one direction until either end closes."""
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            await link.passes()
            to.write(data)
            await to.drain()
