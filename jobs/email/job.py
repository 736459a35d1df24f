"""The e-mail job: it reserves its recipients in the ledger, builds the mail and sends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from packmule.jobs import context, current
from packmule.jobs.email.delivery.mailer import Mailer
from packmule.jobs.email.delivery.route import TemporaryFailure
from packmule.jobs.email.ledger import Ledger, OnUnknown, Run, Send, batch_of, names
from packmule.jobs.email.ledger.verdict import conclude
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.message.addresses import parse
from packmule.jobs.email.message.compose import message_id
from packmule.jobs.email.outcome import State

STEPS = 3
"""The steps of its progress: rendered, connected, sent."""

Build = Callable[[Mailer, str | None], Letter]
"""Builds the mail for the key of its Message-ID, or None for a random one."""


class Policy(NamedTuple):
    """How a mail is sent once: the `key` it was given, and what becomes of what can't be sent at once."""

    key: str | None
    on_unknown: OnUnknown
    give_up_after: float


def send_of(content: dict[str, Any], key: str | None, job_id: str, batch: str) -> Send:
    """What a job sends: what its key names, or else this content within its batch, or within itself."""
    if key is not None:
        return Send(names.send_of_key(key), key)
    if batch:
        return Send(names.send_of_content(f"batch {batch}", content))
    return Send(names.send_of_content(f"job {job_id}", content), is_of_job=True)


def perform(
    recipients: Sequence[str], content: dict[str, Any], policy: Policy, build: Build
) -> dict[str, Any]:
    """Send the mail of `content` that `build` builds to all `recipients` that have not got it yet."""
    mailer = current.resource(Mailer)
    current.progress(0, STEPS, "rendering")
    job, ledger = context.running(), context.resources.get(Ledger)
    run = None
    if job is not None and isinstance(ledger, Ledger):
        send = send_of(content, policy.key, job.id, batch_of(job))
        run = ledger.run(send, policy.on_unknown, policy.give_up_after)
    if run is None:
        return _unrecorded(mailer, policy.key or (job.id if job else None), content, build)
    try:
        return _recorded(mailer, run, recipients, content["sender"], build)
    finally:
        run.close()


def _recorded(
    mailer: Mailer, run: Run, recipients: Sequence[str], sender: str | None, build: Build
) -> dict[str, Any]:
    run.reserve(recipients)
    if all(entry.state is State.REFUSED for entry in run.entries.values()):
        run.reserve(recipients, reopen=True)  # somebody lets a job run again that failed for that
    ready, size, key = run.ready(), 0, run.send.name + run.origin
    if ready:
        letter = build(mailer, key)
        id, size = letter.message_id, len(letter.content)
        current.progress(1, STEPS, "connecting")
        try:
            mailer.deliver([replace(letter, recipients=tuple(ready))], run)
        except TemporaryFailure as error:
            run.unreached(ready, str(error))
        run.flush()
    else:
        id = message_id(key, parse(sender or mailer.sender).spec)
        current.log("nothing is sent: the ledger knows of all recipients")
    conclude(run)
    current.progress(STEPS, STEPS, "sent")
    states = {to: entry.state for to, entry in run.entries.items()}
    replies = {to: entry.reply for to, entry in run.entries.items()}
    return _result(id, size, states, replies)


def _unrecorded(mailer: Mailer, scope: str | None, content: dict[str, Any], build: Build) -> dict[str, Any]:
    letter = build(mailer, names.send_of_content(scope, content) if scope else None)
    current.progress(1, STEPS, "connecting")
    refused = mailer.send(letter)
    current.progress(STEPS, STEPS, "sent")
    states = {to: State.REFUSED if to in refused else State.ACCEPTED for to in letter.recipients}
    return _result(letter.message_id, len(letter.content), states, refused)


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


def envelope(*addresses: Sequence[str]) -> list[str]:
    """The addresses as the envelope has them, each once. Raises `InvalidAddress`."""
    return list(dict.fromkeys(parse(each).spec for some in addresses for each in some))
