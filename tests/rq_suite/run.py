"""Runs the tests in RQ's source archive with our worker in the place of RQ's.

    python tests/rq_suite/run.py [--pip PYTHON] [--stock] [pytest's arguments]

The archive is kept in build/rq-suite; PYTHON is one that has pip, to download it. With `--stock` RQ's own
workers are tested, which tells what of a failure is ours. Exit codes are pytest's, and 0 without an archive.
Several processes share the tests, for these mostly wait; each has a server of its own. What fails is tried
once more, alone: some of the tests give a worker three quarters of a second to be gone.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from packmule.testing import private_server

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "build" / "rq-suite"
PROCESSES = 2
PINNED = re.search(r"^rq==(\S+) --hash=sha256:(\w+)", (HERE / "requirements.txt").read_text(), re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--pip", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--stock", action="store_true")
    options, for_pytest = parser.parse_known_args()
    version, digest = PINNED.groups()
    archive = FOLDER / f"rq-{version}.tar.gz"
    if not archive.exists() and not download(options.pip):
        print(f"Skipping RQ's own tests: {archive} is not there and could not be downloaded")
        return 0
    if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
        print(f"{archive} is not the file that requirements.txt pins: delete it")
        return 1
    with tarfile.open(archive) as tar:
        tar.extractall(FOLDER, filter="data")
    return run(FOLDER / f"rq-{version}", options.stock, for_pytest)


def download(python: str) -> bool:
    """Download the archive; False where that fails, as it does without a network."""
    command = [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "download",
        "-qq",
        "--no-deps",
    ]
    command += ["--require-hashes", "--requirement", str(HERE / "requirements.txt"), "--dest", str(FOLDER)]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def run(source: Path, stock: bool, for_pytest: list[str]) -> int:
    """Run pytest in `source` on servers of its own; the exit code."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "ignore",
        "-p",
        "known",
        "--timeout=90",
        "--timeout-method=thread",
    ]
    with ExitStack() as started:
        servers = [started.enter_context(private_server()) for _ in range(PROCESSES)]
        environment = {
            **os.environ,
            # The suite starts rqworker by its name; site/sitecustomize.py is run by each Python process.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(HERE / "site"),
            "RUN_SLOW_TESTS_TOO": "1",
            "RQ_SUITE_SOCKETS": os.pathsep.join(str(server.socket_path) for server in servers),
            "RQ_SUITE_KNOWN": "" if stock else str(HERE / "known.toml"),
        }
        for how in (["-n", str(PROCESSES)], ["--last-failed"]):
            code = subprocess.run(
                [*command, *how, *for_pytest], cwd=source, env=environment, check=False
            ).returncode
            if code != pytest.ExitCode.TESTS_FAILED:
                break
        return code


if __name__ == "__main__":
    sys.exit(main())
