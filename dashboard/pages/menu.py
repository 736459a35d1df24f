"""The menu: the pages that exist, in groups, with the keys that open them."""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """A page in the menu: its route's name, its text, and the key that opens it after `g`."""

    route: str
    text: str
    key: str = ""


GROUPS: tuple[tuple[str, tuple[Item, ...]], ...] = (
    ("", (Item("overview", "Overview", "o"),)),
    (
        "Work",
        (
            Item("jobs", "Jobs", "j"),
            Item("flows", "Flows", "f"),
            Item("batches", "Batches", "b"),
            Item("errors", "Errors", "e"),
            Item("schedules", "Schedules", "s"),
            Item("approvals", "Approvals", "a"),
            Item("bulks", "Bulk actions"),
        ),
    ),
    (
        "Mail",
        (
            Item("mail", "Mails", "i"),
            Item("mail_sends", "Bulk sends"),
            Item("mail_suppressed", "Suppressed"),
            Item("mail_templates", "Templates"),
            Item("mail_caught", "Caught"),
        ),
    ),
    (
        "Machinery",
        (
            Item("workers", "Workers", "w"),
            Item("queues", "Queues", "q"),
            Item("limits", "Limits", "l"),
            Item("locks", "Locks", "k"),
        ),
    ),
    ("Figures", (Item("metrics", "Metrics", "m"), Item("leaderboard", "Leaderboard", "t"))),
    (
        "Records",
        (
            Item("webhooks", "Webhooks", "h"),
            Item("audit", "Audit", "u"),
            Item("quarantine", "Quarantine", "x"),
            Item("users", "Users"),
            Item("tokens", "Tokens"),
            Item("settings", "Settings", ","),
            Item("rq", "rq-dashboard"),
        ),
    ),
)
"""All pages by group."""


def menu(routes: set[str]) -> list[tuple[str, list[Item]]]:
    """The groups with the pages of `routes`, which the viewer may see; a group without any is left out.

    >>> menu({"overview"})
    [('', [Item(route='overview', text='Overview', key='o')])]
    """
    shown = [(title, [item for item in items if item.route in routes]) for title, items in GROUPS]
    return [(title, items) for title, items in shown if items]
