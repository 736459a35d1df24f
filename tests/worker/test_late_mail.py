"""A mail server that thinks for longer than the job's timeout gets the mail once, and the job finishes."""

from __future__ import annotations

import pytest

from packmule.jobs.email import email
from packmule.tests.jobs.mail_server import DOT, SILENCE, MailServer
from packmule.tests.worker.pools import ended, pool

pytestmark = pytest.mark.usefixtures("produce")


@pytest.mark.parametrize("options", [{}, {"threads": 2}], ids=["main", "threads"])
def test_a_mail_that_is_confirmed_after_the_jobs_timeout_is_taken_once(server, client, options):
    """What the timeout spares is the wait for the answer to the body alone."""
    with MailServer({DOT: lambda server: server.stopped.wait(6) or b"250 at last\r\n"}) as slow:
        with pool(server, mail=slow.url, **options):
            info = ended(client, email.options(timeout=2, retries=0).enqueue("ada@example.org", "s", "t"))
        assert (info.status, info.deaths) == ("finished", 0)
        assert slow.recipients == ["ada@example.org"]


def test_a_server_that_thinks_before_the_body_is_still_bounded_by_the_timeout(server, client):
    with MailServer({"MAIL": SILENCE}) as slow:
        with pool(server, mail=slow.url):
            info = ended(client, email.options(timeout=2, retries=0).enqueue("ada@example.org", "s", "t"))
        assert info.status == "failed"
        assert slow.mails == []
