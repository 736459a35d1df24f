"""The e-mail job: it reserves its recipients in the ledger, builds the mail and sends it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from packmule.errors import Error
from packmule.jobs import context, current
from packmule.jobs.email.calls import envelope, likely_origin, send_of
from packmule.jobs.email.delivery.mailer import Mailer
from packmule.jobs.email.delivery.route import TemporaryFailure
from packmule.jobs.email.ledger import Ledger, Run, Send, batch_of
from packmule.jobs.email.ledger.verdict import conclude
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.message.addresses import parse
from packmule.jobs.email.message.compose import message_id
from packmule.jobs.email.outcome import State

STEPS = 3
"""The steps of its progress: rendered, connected, sent. A mail that is sent in no time reports none."""

Build = Callable[[Mailer, str], Letter]
"""Builds the mail for the key of its Message-ID."""


def perform(arguments: Mapping[str, Any], build: Build) -> dict[str, Any]:
    """Send the mail that `build` builds to all recipients of a call that have not got it yet."""
    mailer, recipients = current.resource(Mailer), envelope(arguments)
    _report(0, "rendering")
    job, ledger = context.running(), context.resources.get(Ledger)
    send = send_of(arguments, job.id if job else secrets.token_hex(16), batch_of(job) if job else "")
    run = None
    if isinstance(ledger, Ledger):
        run = ledger.run(send, arguments["on_unknown"], arguments["give_up_after"])
    if job is None or run is None:
        return _unrecorded(mailer, send, build)
    try:
        return _recorded(
            mailer, run, recipients, arguments["sender"], build, likely_origin(arguments, send, job)
        )
    finally:
        run.close()


def _recorded(
    mailer: Mailer,
    run: Run,
    recipients: Sequence[str],
    sender: str | None,
    build: Build,
    likely: str | None,
) -> dict[str, Any]:
    letter = _built(mailer, run, build, likely)
    run.reserve(recipients, likely=likely if letter and mailer.is_connected else None)
    if all(entry.state is State.REFUSED for entry in run.entries.values()):
        run.reserve(recipients, reopen=True)  # somebody lets a job run again that failed for that
    ready, size, key = run.ready(), 0, run.send.name + run.origin
    if ready:
        if letter is None or run.origin != likely:
            letter = build(mailer, key)
        id, size = letter.message_id, len(letter.content)
        _report(1, "connecting")
        try:
            groups: dict[str, list[str]] = {}
            for to in ready:
                groups.setdefault(run.entries[to].request, []).append(to)
            letters = [replace(letter, recipients=tuple(some)) for some in groups.values()]
            mailer.deliver(map(run.as_before, letters), run)
        except TemporaryFailure as error:
            run.unreached(ready, str(error), error.retry_at)
        run.flush()
    else:
        id = message_id(key, parse(sender or mailer.sender).spec)
        current.log("nothing is sent: the ledger knows of all recipients")
    conclude(run)
    _report(STEPS, "sent")
    states = {to: entry.state for to, entry in run.entries.items()}
    replies = {to: entry.reply for to, entry in run.entries.items()}
    return _result(id, size, states, replies)


def _built(mailer: Mailer, run: Run, build: Build, likely: str | None) -> Letter | None:
    """The letter before its recipients are reserved, if that works: then one script reserves and marks them.

    What keeps it from being built matters only if there is anything to send.
    """
    if likely is None:
        return None
    with suppress(Error):
        return build(mailer, run.send.name + likely)
    return None


def _unrecorded(mailer: Mailer, send: Send, build: Build) -> dict[str, Any]:
    letter = build(mailer, send.name)
    _report(1, "connecting")
    refused = mailer.send(letter)
    _report(STEPS, "sent")
    states = {to: State.REFUSED if to in refused else State.ACCEPTED for to in letter.recipients}
    return _result(letter.message_id, len(letter.content), states, refused)


def _report(step: int, doing: str) -> None:
    if job := context.running():
        job.report_unless_brief(step, STEPS, doing)


def _result(id: str, size: int, states: dict[str, State], replies: dict[str, str]) -> dict[str, Any]:
    def told(state: State) -> dict[str, str]:
        return {to: replies.get(to, "") for to, its in states.items() if its is state}

    return {
        "message_id": id,
        "accepted": list(told(State.ACCEPTED)),
        "refused": told(State.REFUSED),
        "suppressed": told(State.SUPPRESSED),
        "bytes": size,
    }
