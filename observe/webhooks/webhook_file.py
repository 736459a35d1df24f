"""Webhooks from a TOML file: which events go to which URLs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from packmule.jobs.toml_file import InvalidFile, read_toml
from packmule.observe.events import TYPES
from packmule.observe.webhooks.outgoing import Allowed, InvalidTarget, Outgoing
from packmule.observe.webhooks.signature import InvalidSecret, key_of

ENDS = ("finished", "failed", "stopped", "canceled", "quarantined")


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events of these `types` (all ends, if not said) and `queues` (all) go to `url`.

    `secret` is the name of the signature's secret, `concurrency` how many are sent at a time.
    """

    url: str
    types: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ENDS
    queues: tuple[str, ...] = ()
    secret: str | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class Ready(msgspec.Struct, frozen=True):
    """A webhook with its name, and the key of its signature if it has a secret."""

    name: str
    hook: Webhook
    key: bytes | None


def read_file(path: Path, allowed: Allowed, secret: Callable[[str], str]) -> list[Ready]:
    """The webhooks that a file holds: tables `[name]` with the fields of `Webhook`. Raises `InvalidFile`.

    `secret` gives a secret by its name. All of the file is refused if one webhook is wrong.
    """
    _, tables = read_toml(path)
    found = []
    for name, table in tables.items():
        try:
            hook = msgspec.convert(table, Webhook)
            if unknown := [each for each in hook.types if each not in TYPES]:
                raise InvalidFile(f"{unknown[0]!r} is no type of event: {', '.join(TYPES)}")
            Outgoing(hook.url, allowed)
            key = key_of(secret(hook.secret)) if hook.secret is not None else None
        except (msgspec.ValidationError, InvalidTarget, InvalidSecret, ValueError) as error:
            raise InvalidFile(f"{path}, webhook {name}: {error}") from None
        found.append(Ready(name, hook, key))
    return found
