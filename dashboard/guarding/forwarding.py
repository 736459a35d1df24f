"""Forwarding: what trusted proxies say of a request, and the prefix that they put before paths."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from packmule.dashboard.guarding.rules import UNIX

if TYPE_CHECKING:
    from starlette.types import Scope

    from packmule.dashboard.guarding.rules import Rules

FORWARDED = (b"forwarded", b"x-forwarded-", b"x-real-ip")
"""How headers begin that only proxies may send. Nothing behind the guard sees them."""

MAX_HOPS = 20


def forwarded(scope: Scope, rules: Rules) -> Scope:
    """The request as the client sent it: its address, scheme and host, by the word of trusted proxies alone.

    The scope's `state` gets the `peer`, which is the address that connected, if that is such a proxy, and the
    `named` users, who are those that this proxy names in the rules' header; nothing else sees that header.
    Headers with an underscore in their names are dropped, since WSGI takes it for a hyphen.
    """
    peer = _peer(scope)
    trusted = rules.trust(peer)
    given = {name: value.decode("latin-1") for name, value in scope["headers"] if name.startswith(FORWARDED)}
    user_header = rules.user_header.lower().encode()
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if b"_" not in name and not name.startswith(FORWARDED) and name != user_header
    ]
    named = [value.decode("latin-1") for name, value in scope["headers"] if name == user_header]
    state = {"peer": peer, "named": named} if trusted else {"peer": "", "named": []}
    changed = {**scope, "headers": kept, "state": {**scope.get("state", {}), **state}}
    if not trusted:
        return changed
    if scheme := {"http": "http", "https": "https"}.get(_nearest(given, b"x-forwarded-proto")):
        changed["scheme"] = scheme
    if host := _nearest(given, b"x-forwarded-host"):
        others = [each for each in kept if each[0] != b"host"]
        changed["headers"] = [(b"host", host.encode("latin-1")), *others]
    if client := _client(given.get(b"x-forwarded-for", ""), rules):
        changed["client"] = (client, 0)
    return changed


def below_prefix(scope: Scope, prefix: str) -> Scope:
    """The request with its path below `prefix`, whether or not the proxy has cut that off.

    >>> below_prefix({"path": "/jobs"}, "/packmule")
    {'path': '/packmule/jobs', 'root_path': '/packmule'}
    """
    root, path = scope.get("root_path", ""), scope["path"]
    if prefix and not root:
        root = prefix
        if path != root and not path.startswith(f"{root}/"):
            path = root + path
    if path == root:
        path += "/"
    return {**scope, "path": path, "root_path": root}


def root(scope: Scope) -> str:
    """The prefix below which the site is served, "" for none; also for what a part of the site is asked.

    >>> root({"root_path": "/packmule/rq", "app_root_path": "/packmule"})
    '/packmule'
    """
    prefix: str = scope.get("app_root_path", scope.get("root_path", ""))
    return prefix.rstrip("/")


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client and client[0] else UNIX


def _nearest(given: dict[bytes, str], name: bytes) -> str:
    """What the proxy nearest to us has said, if proxies before it said something, too."""
    return given.get(name, "").rpartition(",")[2].strip()


def _client(addresses: str, rules: Rules) -> str:
    """The last address that isn't one of a trusted proxy; whoever is before it may have made the rest up."""
    found = ""
    for each in reversed(addresses.split(",")[-MAX_HOPS:]):
        try:
            found = str(ipaddress.ip_address(_without_port(each.strip())))
        except ValueError:
            break
        if not rules.trust(found):
            break
    return found


def _without_port(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
