"""Mails while Redis is away, and while their jobs are canceled: nothing leaves without its mark."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from packmule.coordination.redis.connection import connect
from packmule.jobs import control, keys, reader
from packmule.jobs.email import email
from packmule.jobs.email.ledger import Performed, Run, Send, names
from packmule.jobs.email.ledger.acts import resolve
from packmule.jobs.email.ledger.reader import MailFilter, of_send, search
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Outcome, State
from packmule.tests.jobs.mail_server import DOT, SILENCE, MailServer
from packmule.tests.worker.pools import ended, is_alive, pool, until

ADA, BOB = "ada@example.org", "bob@example.org"
YES = Outcome(State.ACCEPTED, "250 queued")
SEND = Send(names.send_of_key("k"), "k")


def letter(to: str) -> Letter:
    return Letter("<id@example.org>", "mule@example.org", (to,), b"", False)


def test_marks_wait_until_redis_is_back(spare_server, tmp_path):
    server = spare_server()
    with connect(server.url, tmp_path) as client:  # one that does not start the server by itself
        client.hset(keys.claims_key("w"), "j", "e")
        run = Run(client, 90_000, Performed("j", "e", keys.claims_key("w")), SEND)
        run.reserve([ADA, BOB])
        run.prepare(letter(ADA))
        assert run.begin(letter(ADA))
        pid = server.pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid))
        run.ended(letter(ADA), {ADA: YES})
        begun = []

        def send() -> None:
            run.prepare(letter(BOB))
            begun.append(run.begin(letter(BOB)))

        sending = threading.Thread(target=send)
        sending.start()
        sending.join(3)
        assert sending.is_alive()
        assert begun == []
        server.ensure()
        sending.join(60)
        assert begun == [True]
        assert [each.state for each in of_send(client, SEND.name, [ADA, BOB])] == ["accepted", "sending"]
        run.close()


@pytest.mark.usefixtures("produce")
def test_a_job_that_is_canceled_while_the_server_thinks_leaves_an_unknown_mail(server, client):
    with MailServer(answers={DOT: [SILENCE]}) as post, pool(server, 1, mail=post.url):
        mail = email.enqueue(ADA, "s", "t")
        until(lambda: [each.state for each in search(client, MailFilter()).mails] == ["sending"])
        assert control.cancel(client, mail, timeout=60) == "stopped"
        until(lambda: search(client, MailFilter([State.UNKNOWN])).mails)
        (found,) = search(client, MailFilter([State.UNKNOWN], job=str(mail))).mails
        done = resolve(client, [found], was_sent=False)
        assert done.jobs == [str(mail)]
        assert ended(client, mail).status == "finished"
        assert post.recipients == [ADA]


@pytest.mark.usefixtures("produce")
def test_a_worker_that_is_told_to_stop_ends_its_mail_first(server, client):
    with MailServer(answers={DOT: [_slowly]}) as post, pool(server, 1, mail=post.url) as process:
        mail = email.enqueue(ADA, "s", "t")
        until(lambda: any(each.state == "sending" for each in search(client, MailFilter()).mails))
        process.terminate()
        slow.set()
        assert process.wait(60) == 0
        assert reader.read(client, mail).status == "finished"
        assert post.recipients == [ADA]


@pytest.mark.usefixtures("produce")
def test_threads_send_each_mail_once(server, client):
    everybody = [f"p{number % 40}@example.org" for number in range(80)]
    with MailServer() as post, pool(server, 2, mail=post.url, threads=8):
        jobs = [email.enqueue(to, "s", "t", key="news") for to in everybody]
        for each in jobs:
            until(lambda each=each: reader.read(client, each).status in ("finished", "scheduled"))
        until(lambda: len(post.recipients) >= 40)
        assert sorted(post.recipients) == sorted(set(everybody))


slow = threading.Event()


def _slowly(post: MailServer) -> bytes:
    slow.wait(60)
    return b"250 2.0.0 at last\r\n"
