"""A real IMAP server for tests, Dovecot, with one user's folders in Maildirs and TLS on a loopback port."""

from __future__ import annotations

import imaplib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from packmule.tests.command_line import DEADLINE, until

DOVECOT = shutil.which("dovecot") or next((p for p in ["/usr/sbin/dovecot"] if Path(p).exists()), "")
PASSWORD = 'p"\\ä ss'

CONFIG = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
ssl = required
ssl_cert = <{authority}/server.crt
ssl_key = <{authority}/server.key
mail_location = maildir:{folder}/mail/%u
mail_uid = mail
mail_gid = mail
first_valid_uid = 1
first_valid_gid = 1
default_internal_user = dovecot
default_login_user = dovenull
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {folder}/users
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={folder}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {port}
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


@dataclass
class ImapServer:
    """A running server: its port, and the authority of its TLS."""

    port: int
    authority: Path

    def url(self, name: str = "INBOX", user: str = "bounces%40example.org") -> str:
        return f"imaps://{user}@127.0.0.1:{self.port}/{name}?ca={self.authority}/ca.crt"

    @contextmanager
    def as_user(self) -> Iterator[imaplib.IMAP4_SSL]:
        """Somebody who reads the same folders."""
        context = ssl.create_default_context(cafile=str(self.authority / "ca.crt"))
        with imaplib.IMAP4_SSL("127.0.0.1", self.port, ssl_context=context) as found:
            found.authenticate("PLAIN", lambda _: f"\0bounces@example.org\0{PASSWORD}".encode())
            yield found

    def put(self, *mails: bytes, folder: str = "INBOX") -> None:
        """Deliver mails."""
        with self.as_user() as server:
            for mail in mails:
                kind, said = server.append(folder, "", imaplib.Time2Internaldate(0), mail)
                assert kind == "OK", said

    def unread(self, folder: str = "INBOX") -> int:
        with self.as_user() as server:
            server.select(folder, readonly=True)
            return len(server.search(None, "UNSEEN")[1][0].split())


@contextmanager
def dovecot(authority: Path) -> Iterator[ImapServer]:
    """A server; tests skip where none is installed or may be started."""
    if not DOVECOT or os.getuid() != 0:
        pytest.skip("no Dovecot that may be started here")
    with TemporaryDirectory(prefix="dovecot-") as folder:
        yield from _running(Path(folder), authority)


def _running(folder: Path, authority: Path) -> Iterator[ImapServer]:
    folder.chmod(0o755)  # Dovecot's own users must reach it
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "users").write_text(f"bounces@example.org:{{PLAIN}}{PASSWORD}\n")
    (folder / "mail").mkdir()
    shutil.chown(folder / "mail", "mail", "mail")
    config = folder / "dovecot.conf"
    config.write_text(CONFIG.format(folder=folder, authority=authority, port=port))
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen([DOVECOT, "-F", "-c", config], stdout=output, stderr=output)
    try:
        until(lambda: _listens(port), f"Dovecot listens: {(folder / 'output').read_text()}")
        yield ImapServer(port, authority)
    finally:
        process.terminate()
        process.wait(DEADLINE)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
