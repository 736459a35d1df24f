"""A client of clamd that believes no answer which a scanner gives that scans nothing, or not all."""

from __future__ import annotations

import io
import re
import socket
import struct
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from urllib.parse import unquote, urlsplit

from packmule.errors import Unavailable, UsageError
from packmule.plain_text import one_line
from packmule.units import KIB

PORT = 3310
CONNECT_SECONDS = 10.0
SEND_SECONDS = 60.0
"""How long clamd may take for one chunk; it reads them while they come, and scans at the end."""
ANSWER_SECONDS = 600.0
LONGEST_ANSWER = 4 * KIB
CHUNK = 256 * KIB
LIMITS = "Heuristics.Limits.Exceeded"
"""How the finding begins that clamd reports for what it has not scanned to the end."""

EICAR = b"!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""The file that every scanner finds, without its first three bytes: a scanner would find it here, too."""
DEEPEST = 101
"""One level more than clamd descends into archives, whatever its configuration says."""


class ClamdUnavailable(Unavailable):
    """clamd can't be reached, doesn't answer, or answers what it never should: nothing was scanned."""


class UnfitScanner(UsageError):
    """clamd doesn't find what it must find, so nothing that it says proves a file clean."""


class ScanIncomplete(UsageError):
    """A file is over a limit of clamd, which has not scanned all of it."""


class Clamd:
    """A clamd at `url`: `tcp://host:port` or `unix:///path`. It connects for each call."""

    def __init__(self, url: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.url = url
        self._answer_seconds = answer_seconds

    def prove(self, is_partial_fine: bool = False) -> str:
        """Prove that it finds the EICAR test file; returns its version and that of its signatures.

        Unless `is_partial_fine`, it must also report what it hasn't scanned because of its limits. Raises
        `UnfitScanner` or `ClamdUnavailable`.
        """
        if self.found_in("the EICAR test file", [b"X5O" + EICAR]) is None:
            raise UnfitScanner(
                f"{self._nothing}: it doesn't detect the EICAR test file: update its signatures"
            )
        if not is_partial_fine:
            try:
                self.found_in("nested archives", [_nested()])
            except ScanIncomplete:
                pass
            else:
                raise UnfitScanner(
                    f"{self._nothing}: it reports files as clean that it scanned only in part: put "
                    '"AlertExceedsMax yes" into its clamd.conf, or allow partial scans'
                )
        with self._connected() as connection:
            connection.sendall(b"zVERSION\0")
            return one_line(self._answer(connection), 200)

    def found_in(self, name: str, chunks: Iterable[bytes]) -> str | None:
        """What clamd finds in a file that is called `name` in errors; None if it calls it clean.

        Raises `ScanIncomplete` for a file over one of its limits, and `ClamdUnavailable`.
        """
        with self._connected() as connection:
            connection.sendall(b"zINSTREAM\0")
            is_cut = False
            connection.settimeout(SEND_SECONDS)
            try:
                for chunk in chunks:
                    connection.sendall(struct.pack(">I", len(chunk)) + chunk)
                connection.sendall(bytes(4))
            except ConnectionError:  # it has answered before the end, which says why
                is_cut = True
            answer = self._answer(connection)
        if answer == "stream: OK" and not is_cut:
            return None
        if finding := re.fullmatch("stream: (.+) FOUND", answer):
            found = one_line(finding[1], 200)
            if found.startswith(LIMITS):
                raise ScanIncomplete(f"{name} was not scanned completely: clamd says {found}")
            return found
        if answer == "INSTREAM size limit exceeded. ERROR":
            raise ScanIncomplete(
                f"{name} was not scanned: it's larger than the StreamMaxLength of clamd at {self.url}"
            )
        raise ClamdUnavailable(f"{self._nothing}: it answered {one_line(answer, 200)!r}")

    @property
    def _nothing(self) -> str:
        return f"nothing was scanned by clamd at {self.url}"

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        """A connection; a fault in the block becomes `ClamdUnavailable`."""
        parts = urlsplit(self.url)
        try:
            if parts.scheme == "unix":
                connection = socket.socket(socket.AF_UNIX)
                connection.settimeout(CONNECT_SECONDS)
                with connection:
                    connection.connect(unquote(parts.path))
                    yield connection
            else:
                address = (parts.hostname or "", parts.port or PORT)
                with socket.create_connection(address, CONNECT_SECONDS) as connection:
                    yield connection
        except TimeoutError:
            raise ClamdUnavailable(f"{self._nothing}: it doesn't answer") from None
        except OSError as error:
            raise ClamdUnavailable(f"{self._nothing}: {error.strerror or error}") from None

    def _answer(self, connection: socket.socket) -> str:
        """Its answer, which ends with a zero byte."""
        answer = b""
        deadline = time.monotonic() + self._answer_seconds
        while not answer.endswith(b"\0"):
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            part = connection.recv(LONGEST_ANSWER)
            answer += part
            if not part or len(answer) > LONGEST_ANSWER:
                raise ClamdUnavailable(f"{self._nothing}: its answer was cut short")
        return answer[:-1].decode("utf-8", "replace")


@cache
def _nested() -> bytes:
    """A small archive in an archive, deeper than any clamd descends."""
    content = b"deep"
    for _ in range(DEEPEST):
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", content)
        content = outer.getvalue()
    return content
