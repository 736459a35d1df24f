"""The wheel of this checkout, built in a copy, for a build writes into its source."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def source(folder: Path) -> Path:
    """A copy of the repository in `folder`, without what isn't installed."""
    copy = folder / "packmule-source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in tracked.stdout.decode().split("\0"):
        if name and not name.startswith(("tests/", "docs/", "benchmarks/")) and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    return copy


def built(source: Path) -> Path:
    """The wheel, built in a copy of the repository."""
    program = "import setuptools.build_meta as b; b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, check=True, timeout=100)
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


def environment(folder: Path, what: Sequence[str], using: Path) -> Path:
    """A virtual environment with Packmule, and with what this one has installed besides; its `bin`."""
    venv.create(folder, with_pip=False)
    bin = folder / "bin"
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    # What is in this folder can be imported, but its own .pth files, such as this checkout's, are not read.
    (Path(purelib) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [getattr(sys, "_base_executable", sys.executable), "-m", "pip", "--python", str(bin / "python")]
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [*pip, "install", *options, "--ignore-installed", *what]
    done = subprocess.run(command, cwd=using, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return bin
