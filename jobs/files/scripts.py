"""Scripts beside the modules that start them, in processes of their own, which bound what they may take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def started(name: str, wanted: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """The process of the script `name` of this folder, which gets what is `wanted`; its output is piped."""
    # -P keeps this folder off the script's path, because its modules' names could shadow others.
    command = [sys.executable, "-P", str(Path(__file__).with_name(name)), json.dumps(wanted)]
    return subprocess.Popen(  # noqa: S603  our own script
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
