"""All that Packmule does, as a user of the server who may do no more than the docs say."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from packmule.observe.check.server import LEAST_RIGHTS
from packmule.testing import private_server
from packmule.tests.command_line import CommandLine, environment_in, free_port, until
from packmule.tests.docs.pages import page

ASKED = {"config|get", "acl|dryrun", "acl|whoami"}
"""What is only asked for, to warn of."""

SCHEDULE = '[nightly]\njob = "shop.add"\nargs = [1]\nevery = "1s"\n'


@pytest.fixture
def as_user(tmp_path: Path) -> Iterator[tuple[CommandLine, Redis]]:
    with private_server() as server, Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "packmule", "on", ">s3cret", *LEAST_RIGHTS.split())
        url = server.url.replace("unix://", "unix://packmule:s3cret@")
        yield CommandLine(tmp_path, environment_in(tmp_path, url)), admin


def refused(admin: Redis) -> set[tuple[Any, ...]]:
    """What the server refused to our user."""
    found = admin.acl_log()
    return {
        (each["reason"], each["context"], each["object"]) for each in found if each["object"] not in ASKED
    }


def test_the_docs_name_these_rights():
    assert f"ACL SETUSER packmule on >PASSWORD {LEAST_RIGHTS}" in page("operations")


def test_commands_workers_schedulers_and_the_dashboard_need_no_more(as_user, tmp_path):
    packmule, admin = as_user
    (tmp_path / "schedules.toml").write_text(SCHEDULE)
    samples = Path(__file__).parents[1] / "jobs" / "samples"
    packmule.run("check")
    port = free_port()
    with (
        packmule.started("worker", "--processes", "1", "--no-scheduler"),
        packmule.started("scheduler", "--schedules", "schedules.toml"),
        packmule.started("dashboard", "--port", str(port)),
    ):
        packmule.output("enqueue", "call", "shop.add", "a=1", "--wait")
        failed = packmule.output("enqueue", "call", "shop.boom").strip()
        packmule.run("job", "wait", failed)
        packmule.output(
            "enqueue", "email", "--to", "ada@example.org", "--subject", "x", "--body", "y", "--wait"
        )
        packmule.output("enqueue", "image", str(samples / "photo.jpg"), "--size", "100", "--wait")
        packmule.output("enqueue", "file", str(samples / "weather.csv"), "--to", "parquet", "--wait")
        later = packmule.output("enqueue", "call", "shop.add", "a=1", "--in", "1h").strip()
        until(lambda: "shop.add" in packmule.output("schedule", "list"), "the schedule")
        for words in (
            f"status,top --once,job list,job show {failed},job retry {failed},job cancel {later},limits,"
            "locks,queue pause low,queue resume low,queue purge low --yes,errors list,metrics,audit,"
            "email list,events --limit 5,suppression add eve@example.org,user list,token list"
        ).split(","):
            packmule.run(*words.split())

        def answers() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/login", timeout=10) as page:
                    return page.status == 200
            except OSError:
                return False

        until(answers, "the dashboard")
    assert refused(admin) == set()


def test_check_names_what_a_user_lacks_and_the_way_out(as_user):
    packmule, admin = as_user
    admin.execute_command("ACL", "SETUSER", "packmule", "+acl", "-evalsha")
    said = packmule.run("check").stdout
    assert re.search(r"may not\s+use\s+EVALSHA", said)
    assert "ACL SETUSER packmule" in " ".join(said.split())
