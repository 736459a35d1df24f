"""Connecting to Redis: one call accepts any kind of server and checks that it is fit for jobs."""

from __future__ import annotations

import logging
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.driver_info import DriverInfo
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from packmule.coordination.redis.command_packer import CommandPacker
from packmule.coordination.redis.connection_kinds import (
    EmbeddedConnection,
    Pool,
    Replica,
    Retries,
    SentinelConnection,
    TcpConnection,
    TlsConnection,
    UnixConnection,
    Unreachable,
)
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.coordination.redis.fitness import check
from packmule.coordination.redis.tls import fault_of_files, meaning
from packmule.coordination.redis.waiting import causes
from packmule.errors import UsageError
from packmule.plain_text import mask

CONNECT_TIMEOUT = 3.0
"""Seconds for one attempt to reach a server."""

CHECK_TIMEOUT = 5.0
"""Seconds that a reachable server may take for its first answer."""

ANSWER_TIMEOUT = 5.0
"""Seconds that it may take for each answer, unless the caller says otherwise."""

_FORMS = {
    "redis": "redis://[[user]:password@]host[:port][/db]",
    "rediss": "rediss://[[user]:password@]host[:port][/db]",
    "unix": "unix://[[user]:password@]/path/to.sock[?db=0]",
    "redis+sentinel": "redis+sentinel://[user:password@]host:port[,host:port...]/service[/db]",
}
_KINDS = {"redis": TcpConnection, "rediss": TlsConnection, "unix": UnixConnection}
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
_WANTS_PASSWORD = ("HELLO must be called with the client already authenticated", "Authentication required")
_HUNG_UP = ("Connection closed by server", "Error while reading")
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:,\s]+)):(?P<port>\d{1,5})")
_LAST_PORT = 65535

# A peer that vanishes silently is noticed within 45 seconds, whether idle or waiting for a reply.
_KEEPALIVE = {
    getattr(socket, option): value
    for option, value in {
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPALIVE": 30,  # TCP_KEEPIDLE on macOS
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 45_000,
    }.items()
    if hasattr(socket, option)
}

logger = logging.getLogger(__name__)


class InvalidURL(UsageError, ValueError):
    """A Redis URL is invalid; the text says why without quoting it, because it may contain a password."""


class InvalidClient(UsageError, TypeError):
    """What was given is not a client of redis-py, or one that turns replies into text."""


def connect(
    url: str | None,
    data_dir: Path,
    *,
    allow_eviction: bool = False,
    name: str | None = None,
    socket_timeout: float = ANSWER_TIMEOUT,
    warn: Callable[[str], None] = logger.warning,
) -> redis.Redis:
    """A client for the server at `url`, or for the embedded server of `data_dir` if `url` is None.

    The server is checked first, and warnings go to `warn`, one line each. `name` shows in `CLIENT LIST`.
    A reply may take `socket_timeout` seconds; a blocking read must stay below that. Replies are bytes. If the
    connection is lost, or the server has become a replica, the client resolves the name again, reconnects and
    repeats the command a few times within a second or two: send only commands that are safe to repeat. Close
    the client when done.

    Raises `InvalidURL`, `Unreachable`, `UnfitServer`, or `ServerFailed` for the embedded server; later the
    client raises `Unreachable` and `Unanswered`.

    >>> with connect("redis://localhost:6379/0", Path(".packmule")) as client:  # doctest: +SKIP
    ...     client.ping()
    """
    with _client(url, data_dir, name, CHECK_TIMEOUT) as probe:
        try:
            warnings = check(probe, allow_eviction=allow_eviction)
        except redis.RedisError as error:
            shown = mask((url or EmbeddedServer(data_dir).url).partition("?")[0])
            raise Unreachable(f"{shown}: {_reason(error, shown.partition('://')[0])}") from None
    for warning in warnings:
        warn(warning)
    return _client(url, data_dir, name, socket_timeout)


def checked(client: object) -> redis.Redis:
    """`client`, if it is a `redis.Redis` whose replies are bytes. Raises `InvalidClient`."""
    if not isinstance(client, redis.Redis):
        raise InvalidClient(
            f"a {type(client).__name__} is not a Redis client: give a redis.Redis, or Settings(redis_url=...)"
        )
    if client.get_encoder().decode_responses:
        raise InvalidClient("jobs are read as bytes: make the redis.Redis without decode_responses")
    return client


def lock_clients(urls: Sequence[str], redis_url: str | None, data_dir: Path) -> list[redis.Redis]:
    """A client for each lock node in `urls`, or one for the job server if there are none.

    They don't connect yet, because some nodes may be down. Raises `InvalidURL`.
    """
    return [_client(url, data_dir, None, ANSWER_TIMEOUT) for url in urls or (redis_url,)]


def once_within(seconds: float) -> dict[str, Any]:
    """Options of a connection that tries once, and may take `seconds` each to connect and to answer."""
    return {
        "protocol": 2,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
    }


def _client(url: str | None, data_dir: Path, name: str | None, socket_timeout: float) -> redis.Redis:
    options: dict[str, Any] = {
        "client_name": name,
        "command_packer": CommandPacker(),
        # Or redis-py would read its version from a file, and parse that file as a mail, for each connection.
        "driver_info": DriverInfo(lib_version=redis.__version__),
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        # Not on timeouts: the caller has waited for as long as it wanted to.
        "retry": Retries(ExponentialWithJitterBackoff(base=0.05, cap=1.0), 4, (redis.ConnectionError,)),
    }
    if url is None:
        server = EmbeddedServer(data_dir)
        return redis.Redis.from_pool(Pool(connection_class=EmbeddedConnection, server=server, **options))
    if url.startswith("redis+sentinel://"):
        return _sentinel_client(url, options)
    _refuse_malformed(url)
    scheme = url.partition("://")[0]
    if scheme != "unix":
        options["socket_keepalive_options"] = _KEEPALIVE
    return redis.Redis.from_pool(Pool.from_url(url, connection_class=_KINDS[scheme], **options))


def _sentinel_client(url: str, options: dict[str, Any]) -> redis.Redis:
    parts = _SENTINEL.fullmatch(url)
    if parts is None:
        raise _invalid("redis+sentinel", "it has a different form")
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
            "retry": Retry(NoBackoff(), 0),  # the next sentinel is tried instead
        },
        username=unquote(parts["user"] or "") or None,
        password=unquote(parts["password"] or "") or None,
        db=int(parts["db"] or 0),
        socket_keepalive_options=_KEEPALIVE,
        **options,
    )
    master: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
        unquote(parts["service"]), connection_class=SentinelConnection
    )
    return master


def _refuse_malformed(url: str) -> None:
    """Raise `InvalidURL` for mistakes that redis-py overlooks, such as a database that isn't a number."""
    scheme = url.partition("://")[0]
    if scheme not in _FORMS:
        raise InvalidURL(f"a Redis URL begins with {', '.join(f'{known}://' for known in _FORMS)}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _invalid(scheme, "its port is not a port number") from None
    if scheme == "unix" and (host or not parts.path.strip("/")):
        raise _invalid(scheme, "it has no absolute path")
    if scheme != "unix" and (not host or port == 0):
        raise _invalid(scheme, "it has no host" if not host else "its port is not a port number")
    if scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        raise _invalid(scheme, "its database is not a number")
    if parts.fragment:
        raise _invalid(scheme, "it contains a #")
    known = _OPTIONS | (_TLS_OPTIONS if scheme == "rediss" else {})
    options = parse_qsl(parts.query, keep_blank_values=True)
    for option, value in options:
        if option not in known:
            raise _invalid(scheme, f"after the ? only {', '.join(known)} can be set")
        if not re.fullmatch(known[option], value):
            raise _invalid(scheme, f"its {option} has an invalid value")
    if fault := fault_of_files(dict(options)):
        raise InvalidURL(f"the Redis URL {scheme}://... can't be used: {fault}")


def _invalid(scheme: str, fault: str) -> InvalidURL:
    return InvalidURL(
        f"the Redis URL {scheme}://... is invalid: {fault}; write {_FORMS[scheme]}, "
        "with special characters of the password percent-encoded"
    )


def _reason(error: redis.RedisError, scheme: str) -> str:
    if isinstance(error, Replica):
        return str(error)
    said = " ".join(str(error).split()).rstrip(".")
    cause = error
    while isinstance(cause.__cause__, redis.RedisError):
        cause = cause.__cause__
    tls = next((each for each in causes(error) if isinstance(each, ssl.SSLError)), None)
    if tls is not None:
        return meaning(tls)
    if isinstance(cause, MasterNotFoundError):
        return "no sentinel answered with a master for this service"
    if said.startswith(_WANTS_PASSWORD):
        return f"the server wants a password: write {_FORMS[scheme]}"
    if isinstance(cause, redis.ResponseError | redis.AuthenticationError):
        refused = isinstance(cause, redis.AuthenticationError)
        return f"the server replied: {said}" + (": check the user and password in the URL" if refused else "")
    return f"{said}: is it running? {_hint(scheme, said, isinstance(cause, redis.TimeoutError))}"


def _hint(scheme: str, said: str, is_silent: bool) -> str:
    if scheme == "rediss" and is_silent:
        return "If it speaks no TLS there, write redis:// in the place of rediss://"
    if scheme == "redis" and said.startswith(_HUNG_UP):
        return "If it wants TLS, write rediss:// in the place of redis://"
    return "If PACKMULE_REDIS_URL is unset, the embedded server is used"
