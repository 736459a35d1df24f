"""A worker process of the systems that are started from Python: python -m peers.work PEER."""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    importlib.import_module(f"peers.{sys.argv[1]}").work()
