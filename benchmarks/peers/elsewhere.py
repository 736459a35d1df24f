"""Systems outside this interpreter, on Node, Ruby or a newer Python: where they are, and their versions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
NODE = str(Path(__file__).parent / "node" / "bench.js")
NODE_MODULES = ROOT / "build" / "node" / "node_modules"
RUBY = str(Path(__file__).parent / "ruby" / "bench.rb")
NEWER_BIN = (
    Path(sys.executable).parent if sys.version_info >= (3, 13) else ROOT / "build" / "peers-3.13" / "bin"
)
"""Where the systems are that need Python 3.13."""


def no_node(package: str) -> str:
    """Why a Node system can't run, or nothing."""
    if shutil.which("node") is None:
        return "there is no node: install Node.js 20 or newer"
    return (
        "" if (NODE_MODULES / package).is_dir() else f"{package} is not installed: `make bench-peers` does it"
    )


def no_sidekiq() -> str:
    """Why Sidekiq can't run, or nothing."""
    return "" if shutil.which("sidekiq") else "there is no sidekiq: install Debian's ruby-sidekiq"


def no_newer(script: str) -> str:
    """Why a system that needs Python 3.13 can't run, or nothing."""
    return "" if (NEWER_BIN / script).exists() else "it needs Python 3.13, and `make bench-peers` found none"


def node_versions(*packages: str) -> list[str]:
    """Node's version and those of packages: `Node 20.20.2, bullmq 6.7.0`."""
    found = [f"Node {_said('node', '--version').lstrip('v')}"]
    for name in packages:
        found.append(f"{name} {json.loads((NODE_MODULES / name / 'package.json').read_text())['version']}")
    return found


def ruby_versions() -> list[str]:
    """Those of Ruby and Sidekiq: `ruby 3.1.2p20, Sidekiq 6.4.1`."""
    return [" ".join(_said(command, "--version").split()[:2]) for command in ("ruby", "sidekiq")]


def newer_versions(package: str) -> list[str]:
    """A package's version and its Python's: `mayu 0.2.5 on python3.13`."""
    packages = next((NEWER_BIN.parent / "lib").glob("python3.*/site-packages"))
    found = next(iter(distributions(name=package, path=[str(packages)])))
    return [f"{package} {found.version} on {packages.parent.name}"]


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
