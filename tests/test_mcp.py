"""`packmule mcp` over a real pipe, asked by the library's own client."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from redis import Redis
from rq import Queue

from packmule.coordination.locks.redlock import Redlock
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard.mcp import operating, reading
from packmule.jobs import reader
from packmule.observe import audit
from packmule.tests.command_line import DEADLINE, CommandLine, environment_in
from packmule.tests.dashboard.test_webhooks_page import give_up
from packmule.tests.docs.pages import named, page, rows
from packmule.tests.observe.test_webhooks import SECRET, receiving

KEEP = """

@job
def keep(api_key: str, text: str) -> None:
    pass
"""

Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
def packmule(tmp_path: Path, server: EmbeddedServer, client: Redis) -> CommandLine:
    """Commands on the shared server, which is empty at the start."""
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, KEEP, PACKMULE_PROCESSES="1"))


def talk(packmule: CommandLine, do: Callable[[ClientSession, Ask], Awaitable[None]], *options: str) -> None:
    """Start `packmule mcp`, and let `do` ask it."""

    async def talking() -> None:
        parameters = StdioServerParameters(
            command=sys.executable,
            args=["-m", "packmule", "mcp", *options],
            env={**os.environ, **packmule.environment},
            cwd=str(packmule.cwd),
        )
        async with (
            stdio_client(parameters) as (incoming, outgoing),
            ClientSession(incoming, outgoing) as session,
        ):
            await session.initialize()

            async def ask(name: str, /, **arguments: Any) -> Any:
                answer = await session.call_tool(name, arguments)
                text = answer.content[0].text
                return text if answer.is_error else msgspec.json.decode(text)

            await do(session, ask)

    def run() -> None:
        asyncio.run(asyncio.wait_for(talking(), 2 * DEADLINE))

    with ThreadPoolExecutor(1) as thread:  # a browser of other tests has a loop in this one
        thread.submit(run).result()


def test_an_assistant_reads_and_is_offered_nothing_that_changes(packmule: CommandLine) -> None:
    failed = packmule.output("enqueue", "call", "shop.boom")
    packmule.output("worker", "--burst")

    async def do(session: ClientSession, ask: Ask) -> None:
        tools = (await session.list_tools()).tools
        assert {each.name for each in tools} == {each.name for each in reading.TOOLS}
        assert all(each.annotations and each.annotations.read_only_hint for each in tools)
        (found,) = (await ask("search_jobs", status="failed"))["jobs"]
        assert (found["id"], found["reason"]) == (failed, "ValueError: the shelf is empty")
        (error,) = await ask("list_errors")
        assert "Traceback" in (await ask("show_error", fingerprint=error["fingerprint"]))["traceback"]
        assert (await ask("show_job", id=failed))["status"] == "failed"
        assert failed in str(await ask("overview")) or (await ask("overview"))["open errors"] == 1
        for name, arguments in ALL.items():
            answer = await ask(name, **arguments)
            assert not isinstance(answer, str), (name, answer)
        assert "no tool is called" in await ask("cancel_job", id=failed)

    talk(packmule, do)


ALL: dict[str, dict[str, Any]] = {each.name: {} for each in reading.TOOLS if not each.schema.get("required")}
"""The tools that need no arguments."""


def test_with_leave_an_assistant_acts_and_is_audited(packmule: CommandLine, client: Redis) -> None:
    id = packmule.output("enqueue", "call", "shop.add", "a=1", "--in", "1h")

    async def do(session: ClientSession, ask: Ask) -> None:
        tools = {each.name: each for each in (await session.list_tools()).tools}
        assert set(tools) == {each.name for each in (*reading.TOOLS, *operating.TOOLS)}
        assert tools["cancel_job"].annotations.destructive_hint
        assert await ask("run_job", id=id) == {"id": id, "status": "queued"}
        assert await ask("cancel_job", id=id) == {"id": id, "status": "canceled"}
        assert await ask("pause_queue", name="default") == {"changed": True}

    talk(packmule, do, "--operate")
    assert reader.read(client, id).status == "canceled"
    found = [(each.action, dict(each.subject)) for each in audit.read(client)]
    assert found == [
        ("job run", {"id": id, "by": "mcp"}),
        ("job cancel", {"id": id, "by": "mcp"}),
        ("queue pause", {"name": "default", "by": "mcp"}),
    ]


def test_mistakes_are_answers_in_words(packmule: CommandLine, client: Redis) -> None:
    client.set("rq:job:broken", "no hash")
    pickled = Queue("default", connection=client).enqueue("shop.report", "2026-11").id

    async def do(session: ClientSession, ask: Ask) -> None:
        assert "no job has the id gone" in await ask("show_job", id="gone")
        assert "can't be read" in await ask("show_job", id="broken")
        assert "id" in await ask("show_job")
        assert "is a pickle" in (await ask("show_job", id=pickled))["unread"]
        assert "is a pickle" in (await ask("search_jobs"))["jobs"][0]["unread"]
        assert "nonsense" in await ask("show_job", id="a", nonsense=1)
        assert "limit" in await ask("search_jobs", limit=1_000_000)
        assert "cursor" in await ask("search_jobs", cursor="\x1b[2J")
        assert "status" in await ask("search_jobs", status="lost")
        assert "no error has" in await ask("show_error", fingerprint="../../etc")
        assert (await ask("list_queues"))["queues"]

    talk(packmule, do)


def test_secrets_in_arguments_are_hidden_and_long_texts_cut(packmule: CommandLine) -> None:
    packmule.output("enqueue", "call", "shop.keep", "api_key=s3cret", f"text={'x' * 10_000}")

    async def do(session: ClientSession, ask: Ask) -> None:
        text = str(await ask("search_jobs"))
        assert "s3cret" not in text
        assert "characters left out" in text
        assert len(text) < 10_000

    talk(packmule, do)


def test_locks_are_shown_and_released_from_the_holder_that_is_meant(
    packmule: CommandLine, client: Redis
) -> None:
    lock = Redlock([client], longest_ttl=600).acquire("report", renew=False, ttl=600)
    assert lock is not None

    async def do(session: ClientSession, ask: Ask) -> None:
        (held,) = (await ask("list_locks"))["locks"]
        assert (held["name"], held["fence"], held["nodes"]) == ("report", lock.fence, 1)
        assert "value" not in held
        assert "not held with fence" in await ask("release_lock", name="report", fence=held["fence"] + 1)
        assert "not held with fence" in await ask("release_lock", name="gone\x1b", fence=1)
        assert "not held with fence" in await ask("release_lock", name="report", fence=10**30)
        done = await ask("release_lock", name="report", fence=held["fence"])
        assert done == {"released on": 1, "of nodes": 1}
        assert (await ask("list_locks"))["locks"] == []
        assert "holds no slot" in await ask("release_slot", key="a", job="b")

    talk(packmule, do, "--operate")
    found = [(each.action, each.subject.get("error")) for each in audit.read(client)]
    assert found == [
        *[("locks release", "LockNotReleased")] * 3,
        ("locks release", None),
        ("limits release", "SlotNotReleased"),
    ]


def test_webhooks_are_shown_without_secrets_and_sent_again(packmule: CommandLine, client: Redis) -> None:
    give_up(client, "x", "y")
    with receiving() as receiver:
        file = packmule.cwd / "hooks.toml"
        file.write_text(
            f'[billing]\nurl = "http://127.0.0.1:{receiver.port}/T0/s3cret"\nsecret = "BILLING"\n'
        )
        packmule.environment |= {"PACKMULE_WEBHOOKS": str(file), "PACKMULE_WEBHOOK_ALLOW": "127.0.0.0/8"}

        async def look(session: ClientSession, ask: Ask) -> None:
            (shown,) = await ask("list_webhooks")
            assert (shown["name"], shown["given up"]) == ("billing", 2)
            assert shown["url"] == f"http://127.0.0.1:{receiver.port}/..."
            whole = await ask("show_webhook", name="billing")
            assert len(whole["dead letters"]) == 2
            assert "s3cret" not in str(whole)
            assert "no webhook is called" in await ask("show_webhook", name="gone")
            assert "PACKMULE_SECRET_BILLING" in await ask("resend_webhook", name="billing")

        talk(packmule, look, "--operate")
        packmule.environment["PACKMULE_SECRET_BILLING"] = SECRET

        async def send(session: ClientSession, ask: Ask) -> None:
            assert "has no webhook" in await ask("resend_webhook", name="gone")
            assert await ask("resend_webhook", name="billing") == {"sent": 2, "left": 0}

        talk(packmule, send, "--operate")
        assert receiver.jobs == ["x", "y"]
    assert [each.action for each in audit.read(client)] == ["webhooks dead"] * 3
    packmule.environment["PACKMULE_WEBHOOKS"] = str(packmule.cwd / "gone.toml")

    async def fail(session: ClientSession, ask: Ask) -> None:
        assert "gone.toml" in await ask("list_webhooks")
        assert (await ask("list_queues"))["queues"]

    talk(packmule, fail)


def test_the_page_has_every_tool(client: Redis) -> None:
    shown = [named(row[0])[0] for row in rows(page("mcp"))]
    assert shown == [each.name for each in (*reading.TOOLS, *operating.TOOLS)]
