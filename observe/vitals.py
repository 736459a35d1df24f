"""Vitals: what a process that runs on shows to the one that answers probes, and says to systemd."""

from __future__ import annotations

import math
import mmap
import os
import socket
import struct
import time

from packmule.units import span

SILENCE = 30.0
"""Seconds after which a loop that shows nothing counts as stuck. Loops turn every second, or every ten."""

_BEAT = struct.Struct("<d")
_NUMBERS = struct.Struct("<II?")


class Vitals:
    """Memory that a process shares with those that it forks: when its loop last turned, and what it has.

    `notify_socket` is systemd's `NOTIFY_SOCKET`, which is told once that the process is ready, and stops.

    >>> vitals = Vitals()
    >>> vitals.why_not_ready()
    ['it starts']
    >>> vitals.show(registered=2, wanted=2)
    >>> vitals.why_not_alive(), vitals.why_not_ready()
    ([], [])
    """

    def __init__(self, notify_socket: str = "") -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._notify_socket = notify_socket
        self._told: set[str] = set()

    def show(
        self, registered: int = 1, wanted: int = 1, *, is_draining: bool = False, loops: bool = True
    ) -> None:
        """Show that the loop has turned, and how many of the `wanted` processes are `registered`.

        A process that has no loop shows it once, and is taken for alive from then on.
        """
        _NUMBERS.pack_into(self._memory, _BEAT.size, registered, wanted, is_draining)
        _BEAT.pack_into(self._memory, 0, time.monotonic() if loops else math.inf)
        if registered:
            self._tell("READY=1")
        if is_draining:
            self._tell("STOPPING=1")

    def why_not_alive(self) -> list[str]:
        """Reasons to start the process again; none while its loop turns, or hasn't begun to."""
        (beat,) = _BEAT.unpack_from(self._memory)
        silent = time.monotonic() - beat
        return [f"its loop has not turned for {span(silent)}"] if beat and silent > SILENCE else []

    def why_not_ready(self) -> list[str]:
        """Reasons why it takes no jobs now, beside those of `why_not_alive`."""
        (beat,) = _BEAT.unpack_from(self._memory)
        if not beat:
            return ["it starts"]
        registered, wanted, is_draining = _NUMBERS.unpack_from(self._memory, _BEAT.size)
        if is_draining:
            return ["it drains"]
        return [] if registered else [f"none of its {wanted} processes is registered"]

    def _tell(self, state: str) -> None:
        if not self._notify_socket or state in self._told:
            return
        self._told.add(state)
        address = self._notify_socket
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.connect(address)
                sender.send(f"{state}\nMAINPID={os.getpid()}\n".encode())
        except OSError:
            return  # systemd's own timeout says it
