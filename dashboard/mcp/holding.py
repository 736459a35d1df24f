"""The tools that read who holds locks, and what became of webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from packmule.coordination.locks.state import lock_state
from packmule.dashboard.mcp.tools import Desk, tool
from packmule.errors import NotFound
from packmule.jobs.outgoing.door import Allowed, shown
from packmule.jobs.queues import names as names_of
from packmule.observe.blocked import behind_singleton
from packmule.observe.webhooks import state
from packmule.observe.webhooks.endpoints import Endpoint, read_unsigned
from packmule.observe.webhooks.state import WebhookState

SINGLETON = "singleton "
"""The prefix of the names of locks that workers take for singletons."""

MOST_LETTERS = 20


class NoSuchWebhook(NotFound, LookupError):
    """No webhook has that name."""


class WebhookName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A webhook."""

    name: str


@tool()
def list_locks(desk: Desk, asked: Any) -> Any:
    """Show who holds which lock, until when and with which fence, and how many jobs wait for it."""
    found = lock_state(desk.lock_nodes or (desk.client,))
    names = [each.name.removeprefix(SINGLETON) for each in found.locks if each.name.startswith(SINGLETON)]
    waiting = (
        behind_singleton(desk.client, list(dict.fromkeys(names)), names_of(desk.client, desk.queues))
        if names
        else {}
    )
    shown_locks = []
    for held in found.locks:
        lock = msgspec.to_builtins(held)
        del lock["value"]  # whoever knows it can release the lock
        shown_locks.append({**lock, "waiting": waiting.get(held.name.removeprefix(SINGLETON))})
    return {"locks": shown_locks, "nodes": found.nodes, "faults": found.faults}


@tool()
def list_webhooks(desk: Desk, asked: Any) -> Any:
    """List webhooks: what waits for each, attempts that were delivered and refused, and what was given up."""
    return [_shown(each) for each in states(desk)]


@tool(WebhookName)
def show_webhook(desk: Desk, asked: WebhookName) -> Any:
    """Show one webhook and its last 20 dead letters, with why each was given up."""
    found = next((each for each in states(desk) if each.name == asked.name), None)
    if found is None:
        raise NoSuchWebhook(f"no webhook is called {asked.name!r:.100}: list_webhooks names them")
    letters = [
        {"id": each.id, "reason": each.reason, "at": each.at, "deliveries": each.deliveries}
        for each in state.dead(desk.client, asked.name, 0, MOST_LETTERS)
    ]
    return {**_shown(found), "dead letters": letters}


def states(desk: Desk) -> list[WebhookState]:
    """The webhooks of the file, if there is one, and those that only Redis knows. Raises `InvalidFile`."""
    known: Sequence[Endpoint] = ()
    if desk.webhooks is not None:
        known = read_unsigned(desk.webhooks, Allowed(desk.webhook_allow))
    return state.read(desk.client, list(known))


def _shown(found: WebhookState) -> dict[str, Any]:
    hook = found.endpoint.hook if found.endpoint else None
    return {
        "name": found.name,
        "url": shown(hook.url) if hook else None,
        "types": hook.types if hook else None,
        "queues": hook.queues if hook else None,
        "waiting": found.waiting,
        "sending": found.sending,
        "given up": found.given_up,
        "delivered": found.delivered,
        "refused": found.refused,
        "last delivered at": found.last_at,
    }


TOOLS = (list_locks, list_webhooks, show_webhook)
