"""Connections of a process that is to run on: it waits for a server at first, and then for no answer long."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, ConnectionError, ResponseError
from redis.retry import Retry

from packmule.coordination.redis.backoff import BackOff, is_transient
from packmule.coordination.redis.connection_kinds import Unreachable

ANSWER_SECONDS = 0.6
"""How long an impatient client waits for an answer: while it waits, its process does nothing else."""

log = logging.getLogger("packmule.redis")


def connect_when_up(connect: Callable[[], redis.Redis]) -> redis.Redis:
    """A client from `connect`, which is called until the server answers.

    Raises what `connect` does for a fault that waiting doesn't mend: a host that nobody knows, a wrong
    password, a certificate that doesn't fit.
    """
    backoff = BackOff(0.2, 2.0)
    is_waiting = False
    while True:
        try:
            client = connect()
        except Unreachable as error:
            if not all(map(_may_pass, causes(error))):
                raise
            if not is_waiting:
                is_waiting = True
                log.warning("%s; waiting for it", str(error).partition(": is it running?")[0])
            time.sleep(backoff.next())
        else:
            if is_waiting:
                log.warning("redis is up")
            return client


def causes(error: BaseException) -> Iterator[BaseException]:
    """What an error was raised from, and that again."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _may_pass(cause: BaseException) -> bool:
    if isinstance(cause, socket.gaierror):
        return cause.errno == socket.EAI_AGAIN
    if isinstance(cause, ResponseError):
        return is_transient(cause)
    return not isinstance(cause, AuthenticationError | AuthorizationError | ssl.SSLError | PermissionError)


def impatient(client: redis.Redis) -> redis.Redis:
    """The client, made to give up soon and to try no more than twice."""
    client.connection_pool.connection_kwargs.update(
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 1, (ConnectionError,)),
    )
    return client
