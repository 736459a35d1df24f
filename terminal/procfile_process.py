"""One process of a Procfile: it gets SIGTERM when `packmule up` is killed, so its jobs end."""

from __future__ import annotations

import multiprocessing
import os
import signal
from functools import partial
from multiprocessing.queues import Queue
from typing import Any

from honcho.process import Popen, Process

from packmule.worker.kernel import die_with_parent


class ProcfileProcess(Process):  # type: ignore[misc]  # it has no types
    """What honcho runs in a process of its own, which starts the program and passes on what that prints."""

    def run(self, events: Queue[Any] | None = None, ignore_signals: bool = False) -> None:
        """Run the program to its end."""
        die_with_parent(os.getppid())
        up = multiprocessing.parent_process()
        if up is not None and not up.is_alive():
            os._exit(1)  # it died before this process could ask for that signal
        ends_too = partial(die_with_parent, os.getpid(), signal.SIGTERM)
        self._child_ctor = partial(Popen, preexec_fn=ends_too)
        super().run(events, ignore_signals)
