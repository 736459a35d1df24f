"""A shell beside the files that a page shows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from packmule.tests.docs.pages import ROOT, modules
from packmule.tests.fork_server import Forked


class Shell:
    """Runs commands in a folder of its own, with the modules of a page, on the tests' server."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PACKMULE_REDIS_URL": url,
            "REPORTS_REDIS_URL": url,
            "PACKMULE_MODULES": "",
        }
        self.workers: list[Forked] = []

    def add(self, files: dict[str, str]) -> None:
        """Write Python files; those that declare jobs become `PACKMULE_MODULES`."""
        for name, text in files.items():
            (self.folder / name).write_text(text)
        found = [name.removesuffix(".py") for name, text in files.items() if "@job" in text]
        self.environment["PACKMULE_MODULES"] = ",".join(found)

    def page(self, name: str) -> None:
        """Write the Python files that a page shows."""
        self.add(modules(name))

    def python(self, file: str, *arguments: str) -> str:
        """What a program of the folder prints; it has to exit with 0."""
        with self._started(file.removesuffix(".py"), *arguments, stderr=subprocess.PIPE) as program:
            out, err = program.communicate(timeout=100)
        assert program.returncode == 0, err
        return out

    def packmule(self, *arguments: str) -> str:
        """What a command of ours prints."""
        return self.python("packmule", *arguments)

    def example(self, name: str) -> str:
        """What a program of `docs/examples` prints."""
        self.add({name: (ROOT / "docs" / "examples" / name).read_text()})
        return self.python(name)

    def _started(self, *words: str, stderr: int) -> Forked:
        return Forked(
            list(words),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def work(self) -> None:
        """Perform all that is queued."""
        self.packmule("worker", "--burst", "--processes", "1")

    def start_worker(self) -> None:
        """Have a worker run until the test ends."""
        words = ["packmule", "worker", "--processes", "1"]
        self.workers.append(self._started(*words, stderr=subprocess.DEVNULL))


@pytest.fixture
def shell(server, client, tmp_path) -> Iterator[Shell]:
    shell = Shell(tmp_path, server.url)
    yield shell
    for worker in shell.workers:
        with worker:
            worker.terminate()
