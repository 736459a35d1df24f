"""The door to Redis: one call connects to a server of any kind and checks that it is fit for jobs."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.connection import ConnectionPool, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from packmule.config import mask
from packmule.coordination.redis.command_packer import CommandPacker
from packmule.coordination.redis.embedded_server import EmbeddedServer

CONNECT_TIMEOUT = 3.0
"""Seconds for one attempt to reach a server."""

CHECK_TIMEOUT = 5.0
"""Seconds that a reachable server may take for its first answer."""

OLDEST_SERVER = (6, 2)

_FORMS = {
    "redis": "redis://[[user]:password@]host[:port][/db]",
    "rediss": "rediss://[[user]:password@]host[:port][/db]",
    "unix": "unix://[[user]:password@]/path/to.sock[?db=0]",
    "redis+sentinel": "redis+sentinel://[user:password@]host:port[,host:port...]/service[/db]",
}
_OPTIONS = {"db": r"\d+", "protocol": "[23]"}
_TLS_OPTIONS = {
    "ssl_ca_certs": ".+",
    "ssl_certfile": ".+",
    "ssl_keyfile": ".+",
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": "(?i:true|false)",
}
_SENTINEL = re.compile(
    r"redis\+sentinel://((?P<user>[^:@/?#]*):(?P<password>[^:@/?#]*)@)?"
    r"(?P<hosts>[^@/?#]+)/(?P<service>[^/?#]+)(/(?P<db>\d+))?"
)
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:,\s]+)):(?P<port>\d{1,5})")
_LAST_PORT = 65535

# A peer that vanishes without a word is noticed within 45 seconds, idle or waiting for an answer.
_KEEPALIVE = {
    getattr(socket, option): value
    for option, value in {
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPALIVE": 30,  # the same on macOS
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 45_000,
    }.items()
    if hasattr(socket, option)
}

logger = logging.getLogger(__name__)


class InvalidURL(ValueError):
    """A Redis URL that can't be used; the text says why but never quotes it, for it may hold a password."""


class Unreachable(redis.ConnectionError):
    """Nothing fit to talk to answers at the URL; the text names it, without the password."""


class UnfitServer(RuntimeError):
    """A server that would lose jobs or can't run our scripts; the text says how to make it fit."""


class EmbeddedConnection(UnixDomainSocketConnection):
    """A connection to the embedded server; connecting starts the server where none runs."""

    def __init__(self, *, server: EmbeddedServer, **options: object) -> None:
        super().__init__(path=str(server.socket_path), **options)  # type: ignore[no-untyped-call]
        self.server = server

    def _connect(self) -> socket.socket:
        self.server.ensure()
        connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        return connected


def connect(
    url: str | None,
    data_dir: Path,
    *,
    allow_eviction: bool = False,
    name: str | None = None,
    socket_timeout: float | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> redis.Redis:
    """A client for the server at `url`, or for the embedded server of `data_dir` where `url` is None.

    The server has been checked when this returns: what is worth a warning goes to `warn`, one line each.
    `name` shows in `CLIENT LIST`. `socket_timeout` is how many seconds an answer may take, None for as long
    as it takes; a blocking read must stay below it. Replies are bytes. A lost connection is made again and
    the command sent again, a few times within a second or two, so send only what may be sent twice. Close the
    client when done.

    Raises `InvalidURL`, `Unreachable`, `UnfitServer`, or `server.ServerFailed` for the embedded server.

    >>> with connect("redis://localhost:6379/0", Path(".packmule")) as client:  # doctest: +SKIP
    ...     client.ping()
    """
    # A client without a timeout could wait for ever for something that isn't a Redis, so another one checks.
    with _client(url, data_dir, name, CHECK_TIMEOUT) as probe:
        try:
            warnings = check(probe, allow_eviction=allow_eviction)
        except redis.RedisError as error:
            shown = mask((url or EmbeddedServer(data_dir).url).partition("?")[0])
            raise Unreachable(f"{shown}: {_reason(error)}") from None
    for warning in warnings:
        warn(warning)
    return _client(url, data_dir, name, socket_timeout)


def lock_clients(urls: Sequence[str], redis_url: str | None, data_dir: Path) -> list[redis.Redis]:
    """A client for each of the lock nodes at `urls`, or for the job server alone where there are none.

    Nothing is asked of them yet, for some may be down. Raises `InvalidURL`.
    """
    return [_client(url, data_dir, None, CHECK_TIMEOUT) for url in urls or (redis_url,)]


def once_within(seconds: float) -> dict[str, Any]:
    """Options of a connection whose connecting and answering may take so long each, and which tries once."""
    return {
        "protocol": 2,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
    }


def check(client: redis.Redis, *, allow_eviction: bool) -> list[str]:
    """Refuse a server unfit for jobs and return what to warn of, one line each.

    Raises `UnfitServer` for a server older than `OLDEST_SERVER`, and for one that evicts keys when its memory
    is full, unless `allow_eviction`.
    """
    info: Mapping[str, Any] = client.info()
    refuse_old(str(info.get("redis_version", "")))
    warnings = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        fault = f"the server deletes jobs when its memory is full (maxmemory-policy {policy})"
        if not allow_eviction:
            raise UnfitServer(
                f"{fault}: run CONFIG SET maxmemory-policy noeviction, or set PACKMULE_ALLOW_EVICTION=1"
            )
        warnings.append(f"{fault}, and PACKMULE_ALLOW_EVICTION allows it")
    if not info.get("aof_enabled") and _has_no_save_points(client):
        warnings.append(
            "the server keeps nothing on disk, so its restart loses all jobs: run CONFIG SET appendonly yes"
        )
    return warnings


def refuse_old(version: str) -> None:
    """Raise `UnfitServer` for a `version` before `OLDEST_SERVER`, such as "6.0.16"; others pass."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_SERVER:
        raise UnfitServer(f"the server is Redis {version}: use Redis 6.2 or later, or any Valkey")


def _has_no_save_points(client: redis.Redis) -> bool:
    try:
        points: Mapping[Any, Any] = client.config_get("save")
    except redis.ResponseError:
        return False  # managed services forbid the question, and look after persistence themselves
    return not any(points.values())


def _client(url: str | None, data_dir: Path, name: str | None, socket_timeout: float | None) -> redis.Redis:
    options: dict[str, Any] = {
        "client_name": name,
        "command_packer": CommandPacker(),
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        # Not on timeouts: they have cost the caller as long as it meant to wait.
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), 4, (redis.ConnectionError,)),
    }
    if url is None:
        server = EmbeddedServer(data_dir)
        return redis.Redis.from_pool(
            ConnectionPool(connection_class=EmbeddedConnection, server=server, **options)
        )
    if url.startswith("redis+sentinel://"):
        return _sentinel_client(url, options)
    _refuse_malformed(url)
    if not url.startswith("unix://"):
        options["socket_keepalive_options"] = _KEEPALIVE
    return redis.Redis.from_url(url, **options)


def _sentinel_client(url: str, options: dict[str, Any]) -> redis.Redis:
    parts = _SENTINEL.fullmatch(url)
    if parts is None:
        raise _invalid("redis+sentinel", "it has another shape")
    nodes = []
    for node in parts["hosts"].split(","):
        address = _HOST.fullmatch(node)
        if address is None or not 0 < int(address["port"]) <= _LAST_PORT:
            raise _invalid("redis+sentinel", "each sentinel needs a host and a port")
        nodes.append((address["ipv6"] or address["name"], int(address["port"])))
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        nodes,
        sentinel_kwargs={
            "socket_timeout": CONNECT_TIMEOUT,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),  # the next sentinel is asked instead
        },
        username=unquote(parts["user"] or "") or None,
        password=unquote(parts["password"] or "") or None,
        db=int(parts["db"] or 0),
        socket_keepalive_options=_KEEPALIVE,
        **options,
    )
    master: redis.Redis = sentinel.master_for(unquote(parts["service"]))  # type: ignore[no-untyped-call]
    return master


def _refuse_malformed(url: str) -> None:
    """Raise `InvalidURL` for what redis-py would overlook, such as a database that isn't a number."""
    scheme = url.partition("://")[0]
    if scheme not in _FORMS:
        raise InvalidURL(f"a Redis URL begins with {', '.join(f'{known}://' for known in _FORMS)}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _invalid(scheme, "its port is no port") from None
    if scheme == "unix" and (host or not parts.path.strip("/")):
        raise _invalid(scheme, "it has no absolute path")
    if scheme != "unix" and (not host or port == 0):
        raise _invalid(scheme, "it has no host" if not host else "its port is no port")
    if scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        raise _invalid(scheme, "its database is not a number")
    if parts.fragment:
        raise _invalid(scheme, "it has a # in it")
    known = _OPTIONS | (_TLS_OPTIONS if scheme == "rediss" else {})
    for option, value in parse_qsl(parts.query, keep_blank_values=True):
        if option not in known:
            raise _invalid(scheme, f"after its ? only {', '.join(known)} can be set")
        if not re.fullmatch(known[option], value):
            raise _invalid(scheme, f"its {option} has no such value")


def _invalid(scheme: str, fault: str) -> InvalidURL:
    return InvalidURL(
        f"the Redis URL {scheme}://... can't be used: {fault}; write {_FORMS[scheme]}, "
        "with special characters of the password percent-encoded"
    )


def _reason(error: redis.RedisError) -> str:
    if isinstance(error, MasterNotFoundError):
        return "none of the sentinels answers and names a master of this service"
    said = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, redis.AuthenticationError):
        return f"the server says: {said}: check the user and password in the URL"
    if isinstance(error, redis.ResponseError):
        return f"the server says: {said}"
    return f"{said}: is it running? With PACKMULE_REDIS_URL unset the embedded server is used"
