"""Health: processes that answer probes while a command runs, and `packmule health`, which asks one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from packmule import setting_values
from packmule.terminal.parameters import json_option
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.observe.vitals import Vitals
    from packmule.terminal.app import App

PATIENCE = 5.0
"""Seconds that `packmule health` waits for an answer."""

health_option = click.option(
    "--health",
    metavar="HOST:PORT",
    help="Answer /healthz, /readyz, /metrics and /scale on this address.  [default: PACKMULE_HEALTH]",
)


def address_of(text: str, hint: str) -> tuple[str, int]:
    """The host and the port of an address such as `127.0.0.1:9465` or `[::1]:0`."""
    try:
        host, _, port = setting_values.address(text).rpartition(":")
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not an address: {error}", param_hint=hint) from None
    return host.strip("[]"), int(port)


@contextmanager
def answering(app: App, given: str | None) -> Iterator[Vitals]:
    """Let another process answer probes until the block ends, if an address is given or set.

    The vitals are what it knows of this one. It is forked before this process has threads and connections.
    """
    import os
    import signal

    from packmule.config import notify_socket
    from packmule.observe.vitals import Vitals

    vitals = Vitals(notify_socket())
    address = given if given is not None else app.settings.health
    if not address:
        yield vitals
        return
    from packmule.observe import probes
    from packmule.worker.kernel import die_with_parent

    host, port = address_of(address, "--health" if given is not None else "PACKMULE_HEALTH")
    try:
        listening = probes.listen(host, port)
    except (OSError, OverflowError) as error:
        raise click.UsageError(
            f"can't answer probes on {address}: {error}: give each process of a host an address of its own"
        ) from None
    say(f"Answering probes on http://{host}:{listening.getsockname()[1]}/readyz", err=True)
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            die_with_parent(parent)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's, which is for the parent
            probes.serve(listening, probes.Probes(vitals, app.connect, app.queues_on))
        finally:
            os._exit(1)
    listening.close()
    try:
        yield vitals
    finally:
        # Before the connections are closed: its own would keep an embedded server.
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


@click.command()
@click.argument("address", required=False)
@click.option("--alive", is_flag=True, help="Ask only whether it is alive, not whether it takes jobs.")
@json_option
@click.pass_obj
def health(app: App, address: str | None, alive: bool, json: bool) -> int:
    """Ask a worker, scheduler or webhooks process whether it is ready.

    ADDRESS is the process's --health address, or a full URL such as a dashboard's
    http://127.0.0.1:9181/health. Exit with 0 if it is ready, and with 1 if it isn't or doesn't answer.
    """
    given = address or app.settings.health
    if not given:
        raise click.UsageError("give an address, or set PACKMULE_HEALTH")
    reasons = _reasons(given, "/healthz" if alive else "/readyz")
    if json:
        from packmule.terminal import show

        show.as_json({"ok": not reasons, "reasons": reasons})
    elif not reasons:
        say("ok")
    else:
        for each in reasons:
            complain(each)
    return 1 if reasons else 0


def _reasons(address: str, path: str) -> list[str]:
    """Why the process at an address is not as it should be."""
    from http import HTTPStatus
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    host, port = "", 80
    if "://" in address:
        parts = urlsplit(address)
        if parts.scheme != "http" or not parts.hostname:
            raise click.BadParameter(f"{address!r} is not an http URL", param_hint="ADDRESS")
        host, port, path = parts.hostname, parts.port or 80, parts.path or path
    else:
        host, port = address_of(address, "ADDRESS")
    connection = HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(4096).decode(errors="replace")
    except (OSError, OverflowError, HTTPException) as error:
        return [f"{host}:{port} does not answer: {error or type(error).__name__}"]
    finally:
        connection.close()
    return [] if answer.status == HTTPStatus.OK else text.splitlines() or [f"it answers {answer.status}"]
