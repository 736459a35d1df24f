"""The pages' examples run, and do what the pages say."""

from __future__ import annotations

import re
from base64 import b64encode

import pytest

from packmule.jobs.batch_state import latest
from packmule.jobs.cron import Cron
from packmule.jobs.schedule_file import read_file
from packmule.tests.docs.pages import PAGES, blocks, modules, named, page, rows


@pytest.mark.parametrize("name", PAGES)
def test_every_python_block_names_its_file_and_can_be_compiled(name):
    for file, text in modules(name).items():
        compile(text, file, "exec")


def test_the_readmes_first_job_runs(shell, client):
    shell.page("README")
    shell.start_worker()
    assert shell.python("program.py") == "2 of 2026-11\n"
    assert client.zcard("rq:scheduled:high") == 1
    call = ["shop.report", "month=2026-11", "copies=2"]
    assert shell.packmule("enqueue", "call", *call, "--wait").splitlines()[-1] == '"2 of 2026-11"'


def test_the_page_of_jobs_runs_beside_a_worker(shell, client):
    shell.page("jobs")
    shell.start_worker()
    assert shell.python("program.py") == "2 of 2026-11 3 of 2026-02\n"
    assert shell.python("coroutine.py") == "1 of 2026-11\n"
    assert shell.python("two_servers.py") == "2 of 2026-11\n"
    shell.python("ready_made.py")
    for name, argument in [
        ("indexing.reindex", "rows=3"),
        ("kinds.thumbnail_of_a_stranger", "path=a.png"),
        ("kinds.notify", "url=http://a"),
    ]:
        shell.packmule("enqueue", "call", name, argument, "--wait")


def test_the_jobs_pages_unique_jobs_and_plain_rq_keep_to_it(shell, client):
    shell.page("jobs")
    shell.python("plain_rq.py")
    (id,) = client.lrange("rq:queue:default", 0, -1)
    invoices = [shell.packmule("enqueue", "call", "accounts.invoice", f"account_id={n}") for n in (1, 1, 2)]
    assert invoices[0] == invoices[1] != invoices[2]
    refreshed = [
        shell.packmule("enqueue", "call", "accounts.refresh", "account_id=1", f"why={n}") for n in "ab"
    ]
    assert refreshed[0] == refreshed[1]
    assert b'"why":"b"' in client.hget(f"rq:job:{refreshed[0].strip()}", "data")
    shell.work()
    assert shell.packmule("job", "wait", id.decode()) == '"1 of 2026-11"\n'


def test_the_page_of_steps_runs_beside_a_worker(shell):
    shell.page("steps")
    shell.start_worker()
    assert shell.python("approve.py") == "order 7 sent for payment-7\n"
    pages = shell.packmule("enqueue", "call", "fetching_pages.fetch_all", "pages=3", "--wait")
    assert pages.splitlines()[-1] == "30"


def test_the_page_of_logs_runs_beside_a_worker(shell):
    shell.page("logs")
    shell.start_worker()
    said = "is it late"
    lines = f"info asked: {said} {{}}\ninfo answered {{'words': 3}}\n"
    assert shell.python("listen.py") == f"si ti etal \n{lines}"
    assert shell.python("listen_async.py") == "si ti etal 0 dropped\n"


def test_the_page_of_limits_runs(shell):
    shell.page("limits")
    id = shell.packmule("enqueue", "call", "payments.settle", "account_id=1").strip()
    crawl = shell.packmule("enqueue", "call", "payments.crawl", "domain=example.org", "tenant=1").strip()
    shell.work()
    assert int(shell.packmule("job", "wait", id)) > 0
    shell.packmule("job", "wait", crawl)
    for line in re.findall(r"^\$ packmule (.*?)\s*(?:#.*)?$", page("limits"), flags=re.MULTILINE):
        shell.packmule(*line.split())


def test_the_page_of_schedules_runs(shell, tmp_path):
    shell.add({**modules("schedules"), **modules("jobs")})
    shell.python("nightly.py")
    expressions = [text for row in rows(page("schedules")) for text in named(row[0]) if " " in text]
    assert len(expressions) > 4
    assert all(Cron(text, "Europe/Madrid").next(0) for text in expressions)
    (tmp_path / "schedules.toml").write_text(blocks("schedules", "toml")[0])
    (nightly,) = read_file(tmp_path / "schedules.toml")
    assert (nightly.name, nightly.overlap, nightly.jitter) == ("nightly", "skip", 120)
    shell.packmule(
        "schedule", "add", "nightly", "shop.report", "month={tick}", "--cron", "30 2 * * *",
        "--tz", "Europe/Madrid",
    )  # fmt: skip
    assert len(shell.packmule("schedule", "next", "nightly", "3").splitlines()) == 3
    assert "30 2 * * *" in shell.packmule("schedule", "show", "nightly")


def test_the_page_of_events_runs(shell, tmp_path):
    (tmp_path / "webhooks.toml").write_text(blocks("events", "toml")[0])
    secret = b64encode(b"thirty-two bytes of a secret ...").decode()
    shell.environment |= {"PACKMULE_WEBHOOKS": "webhooks.toml", "PACKMULE_SECRET_BILLING": f"whsec_{secret}"}
    for line in re.findall(r"^\$ packmule (webhooks.*?)\s*(?:#.*)?$", page("events"), flags=re.MULTILINE):
        shell.packmule(*line.split())
    assert "https://billing.example.org/hooks/jobs" in shell.packmule("webhooks", "list", "--json")


def test_the_page_of_batches_runs_beside_a_worker(shell, client):
    shell.page("batches")
    shell.start_worker()
    assert shell.python("start.py") == "100 done, 0 failed\n"
    (state,) = latest(client)
    shell.packmule("batch", "wait", state.id)


def test_the_page_of_flows_runs_beside_a_worker(shell, client):
    shell.page("flows")
    shell.start_worker()
    assert shell.python("chains.py") == "5\n"
    assert shell.python("graph.py") == "30 stored\n"


def test_the_page_of_coordination_runs(shell):
    shell.page("coordination")
    shell.python("connecting.py")
    assert shell.python("locking.py") == "True\n"


def test_the_example_of_limits_runs(shell):
    *attempts, too_many, left, busy = shell.example("limits.py").splitlines()
    assert attempts == [f"login attempt {number}" for number in range(1, 6)]
    assert re.fullmatch(r"too many: wait (60|5\d) s", too_many)
    assert left == "True, 40 left, all of it again in 36 s"
    assert re.fullmatch(r"busy: try again in at most (30|2\d) s", busy)


def test_the_example_of_sessions_runs(shell):
    *lines, waits = shell.example("sessions.py").splitlines()
    assert lines == [
        "{'role': 'staff'}",
        "1 None",
        "one of two is a thief",
        "True False",
        "{'next': '/cart'} None",
    ]
    assert re.fullmatch(r"wait [0-4] s", waits)


def test_the_example_of_the_cache_runs_and_runs_again(shell):
    for _ in range(2):
        assert shell.example("cache.py").splitlines() == [
            "looking up the chair",
            "looking up the table",
            "12 12 80",
            "looking up the chair",
            "14 80",
            "looking up the chair",
            "looking up the table",
            "14 90",
            "[104, None]",
            "[104, None]",
            "[104, None] not kept",
            r"b'\x89PNG'",
        ]


def test_the_example_of_events_runs(shell):
    assert shell.example("events.py").splitlines() == [
        "ordered 1",
        "paid 1",
        "closed 1",
        "3 events are kept for other groups",
    ]


def test_every_key_that_the_examples_leave_is_documented(shell, client):
    shell.add({**modules("jobs"), **modules("limits"), **modules("batches")})
    shell.packmule("enqueue", "call", "shop.report", "month=2026-11", "--in", "60s")
    shell.packmule("enqueue", "call", "payments.settle", "account_id=1")
    shell.packmule("enqueue", "call", "payments.crawl", "domain=example.org", "tenant=1")
    shell.packmule("enqueue", "call", "accounts.invoice", "account_id=1")
    shell.start_worker()
    shell.python("start.py")
    shell.work()
    table = "\n".join(
        line.split("|")[1] for line in page("redis-keys").splitlines() if line.startswith("| `")
    )
    patterns = [re.sub(r"<[^>]+>", ".+", re.escape(key)) for key in re.findall(r"`((?:rq|pm):[^`]+)`", table)]
    for key in client.keys("*"):
        assert any(re.fullmatch(pattern, key.decode()) for pattern in patterns), key


def test_the_page_of_mails_sends_its_first_ones_once(shell):
    (template,) = blocks("email", "html")
    shell.page("email")
    shell.environment["PACKMULE_TEMPLATES"] = "templates"
    path = shell.folder / "templates" / "orders" / "shipped.html"
    path.parent.mkdir(parents=True)
    path.write_text(template)
    shown = shell.packmule("email", "preview", "orders/shipped", "--var", "name=Ada", "--var", "order=7")
    assert shown == "It is on its way, Ada!\n\nOrder 7 left our store.\n"
    shell.packmule(
        "enqueue", "email", "--to", "ada@example.org", "--subject", "Welcome", "--body", "Soon more."
    )
    shell.python("mails.py")
    shell.python("mails.py")
    shell.work()
    caught = [each.read_text() for each in (shell.folder / ".packmule" / "files" / "mail").iterdir()]
    (order,) = [each for each in caught if "Subject: Order 7 was shipped" in each]
    assert len(caught) == 2
    assert '<h1 style="color: #4a45b5;">It is on its way, Ada!</h1>' in order
