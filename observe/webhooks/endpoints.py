"""Endpoints: the webhooks of a TOML file, that is which events go to which URLs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from packmule.jobs.outgoing.door import Allowed, InvalidTarget, Outgoing
from packmule.jobs.toml_file import InvalidFile, read_toml
from packmule.observe.events import TYPES
from packmule.observe.webhooks.signature import InvalidSecret, key_of

ENDS = ("finished", "failed", "stopped", "canceled", "quarantined")


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events of these `types` (default: all ends of jobs) and `queues` (default: all) are posted to `url`.

    `secret` is the name of the secret that signs them; up to `concurrency` are sent at a time.
    """

    url: str
    types: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ENDS
    queues: tuple[str, ...] = ()
    secret: str | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class Endpoint(msgspec.Struct, frozen=True):
    """A webhook with its name, and its signing key if it has a secret."""

    name: str
    hook: Webhook
    key: bytes | None


def group_of(name: str) -> str:
    """The consumer group of the webhook called `name`."""
    return f"webhook:{name}"


def read_endpoints(path: Path, allowed: Allowed, secret: Callable[[str], str]) -> list[Endpoint]:
    """The webhooks in a file: tables `[name]` with the fields of `Webhook`. Raises `InvalidFile`.

    `secret` returns a secret by its name. One invalid webhook makes the whole file invalid.
    """
    _, tables = read_toml(path)
    found = []
    for name, table in tables.items():
        try:
            hook = msgspec.convert(table, Webhook)
            if unknown := [each for each in hook.types if each not in TYPES]:
                raise InvalidFile(f"{unknown[0]!r} is not a type of event: {', '.join(TYPES)}")
            Outgoing(hook.url, allowed)
            key = key_of(secret(hook.secret)) if hook.secret is not None else None
        except (msgspec.ValidationError, InvalidTarget, InvalidSecret, ValueError) as error:
            raise InvalidFile(f"{path}, webhook {name}: {error}") from None
        found.append(Endpoint(name, hook, key))
    return found


def read_unsigned(path: Path, allowed: Allowed) -> list[Endpoint]:
    """The webhooks in a file for those who only look: no secret is read, so their keys sign nothing.

    Raises `InvalidFile`.
    """
    return read_endpoints(path, allowed, lambda name: "-" * 32)
