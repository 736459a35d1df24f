"""A shell beside the files that a page shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from packmule.tests.docs.pages import ROOT, modules


class Shell:
    """Runs commands in a folder of its own, with the modules of a page, on the tests' server."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PACKMULE_REDIS_URL": url,
            "PACKMULE_MODULES": "",
        }
        self.workers: list[subprocess.Popen[bytes]] = []

    def add(self, files: dict[str, str]) -> None:
        """Write Python files; those that declare jobs become `PACKMULE_MODULES`."""
        for name, text in files.items():
            (self.folder / name).write_text(text)
        found = [name.removesuffix(".py") for name, text in files.items() if "@job" in text]
        self.environment["PACKMULE_MODULES"] = ",".join(found)

    def page(self, name: str) -> None:
        """Write the Python files that a page shows."""
        self.add(modules(name))

    def run(self, *command: str) -> str:
        """What a command prints; it has to exit with 0."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def python(self, file: str | Path) -> str:
        """What a Python program prints."""
        return self.run(sys.executable, str(file))

    def packmule(self, *arguments: str) -> str:
        """What a command of ours prints."""
        return self.run(sys.executable, "-m", "packmule", *arguments)

    def work(self) -> None:
        """Perform all that is queued."""
        self.packmule("worker", "--burst", "--processes", "1")

    def start_worker(self) -> None:
        """Have a worker run until the test ends."""
        command = [sys.executable, "-m", "packmule", "worker", "--processes", "1"]
        self.workers.append(
            subprocess.Popen(command, cwd=self.folder, env=self.environment, stderr=subprocess.DEVNULL)
        )

    def example(self, name: str) -> Path:
        """The path of a file of `docs/examples`."""
        return ROOT / "docs" / "examples" / name


@pytest.fixture
def shell(server, client, tmp_path) -> Iterator[Shell]:
    shell = Shell(tmp_path, server.url)
    yield shell
    for worker in shell.workers:
        worker.terminate()
        worker.wait(60)
