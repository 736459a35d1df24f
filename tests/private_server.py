"""A real server of a test's own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packmule.coordination.redis.embedded_server import EmbeddedServer


@contextmanager
def private_server() -> Iterator[EmbeddedServer]:
    """A running server of one's own, gone with all its files at the end."""
    server = EmbeddedServer(Path(tempfile.mkdtemp(prefix="packmule-")))
    try:
        server.ensure()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.data_dir)
