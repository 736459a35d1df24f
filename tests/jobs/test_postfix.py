"""Delivery to a real Postfix, where one is installed and may be started: each mail is in its log once."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from packmule.jobs.email import Mailer
from packmule.jobs.email.letter import Content
from packmule.jobs.email.message.compose import compose
from packmule.jobs.email.outcome import State
from packmule.tests.command_line import until
from packmule.tests.jobs.mail_journal import Book

POSTFIX = shutil.which("postfix") or next((p for p in ["/usr/sbin/postfix"] if Path(p).exists()), "")
DAEMONS = Path("/usr/lib/postfix/sbin")

pytestmark = pytest.mark.skipif(
    not POSTFIX or not DAEMONS.is_dir() or os.getuid() != 0, reason="no Postfix that may be started here"
)

MAIN = """
compatibility_level = 3.6
command_directory = /usr/sbin
daemon_directory = {daemons}
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file_prefixes = {folder}
maillog_file = {folder}/log
myhostname = mail.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
default_transport = discard
smtpd_recipient_limit = 5
smtpd_recipient_restrictions =
  check_recipient_access inline:{{
    {{nobody@example.org = 550 5.1.1 no such user}}, {{later@example.org = 450 4.2.0 greylisted}} }},
  permit_mynetworks, reject
"""
MASTER = """
{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""  # fmt: skip


@pytest.fixture(scope="module")
def postfix(tmp_path_factory):
    """A Postfix of our own that discards what it takes: its port, and what its log says."""
    folder = tmp_path_factory.mktemp("postfix")
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)  # Postfix's own user must reach it
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "spool").mkdir()
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "postfix")
    (folder / "main.cf").write_text(MAIN.format(folder=folder, daemons=DAEMONS))
    (folder / "master.cf").write_text(MASTER.format(port=port))
    started = subprocess.run([POSTFIX, "-c", folder, "start"], capture_output=True, text=True, check=False)
    if started.returncode:
        pytest.skip(f"Postfix does not start here: {started.stderr[-300:]}")
    try:
        yield port, lambda: (folder / "log").read_text() if (folder / "log").exists() else ""
    finally:
        subprocess.run([POSTFIX, "-c", folder, "stop"], capture_output=True, check=False)


def mail(number, to):
    return compose(
        Content("Grüße\n.\n..\n", None),
        subject=f"Nr. {number}",
        sender="mule@example.org",
        to=to,
        key=f"k{number}",
    )


def test_postfix_takes_each_mail_once_and_says_what_it_refuses(postfix):
    port, log = postfix
    mailer, book = Mailer(f"smtp://127.0.0.1:{port}", "mule@example.org"), Book()
    letters = [mail(number, [f"a{number}@example.org"]) for number in range(200)]
    letters[100:100] = [
        mail(1000, ["nobody@example.org"]),
        mail(1001, ["later@example.org", "yes@example.org", "nobody@example.org"]),
        mail(1002, [f"many{number}@example.org" for number in range(12)]),  # more than it takes at once
    ]
    try:
        mailer.deliver(letters, book)
    finally:
        mailer.close()
    states = Counter(outcome.state for outcome in book.outcomes.values())
    assert states == {State.ACCEPTED: 200 + 1 + 12, State.REFUSED: 2, State.DEFERRED: 1}
    assert all(o.is_bad_address for o in book.outcomes.values() if o.state is State.REFUSED)
    wanted = {to for (_, to), outcome in book.outcomes.items() if outcome.state is State.ACCEPTED}

    def sent():
        return Counter(re.findall(r"discard.*to=<([^>]+)>.*status=sent", log()))

    until(lambda: len(sent()) >= len(wanted), "Postfix has sent all")
    assert sent() == dict.fromkeys(wanted, 1)
    assert len(re.findall(r"smtpd\[\d+\]: connect from", log())) == 1
