"""Documents that hold true: commands, settings and keys are documented, and the README's examples run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from packmule import cli
from packmule.config import PLATFORM_VARIABLES, VARIABLES, Settings
from packmule.jobs.batch import batches
from packmule.scheduler.schedules.schedule import Schedule
from packmule.scheduler.schedules.schedule_file import read_file

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
KEYS = (ROOT / "docs" / "redis-keys.md").read_text()


def leaves(group: click.Group, path: str = "packmule") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield f"{path} {name}"
            yield from leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def test_every_command_is_in_the_readme_and_no_other():
    table = README.partition("### Commands")[2].partition("### Settings")[0]
    assert set(re.findall(r"`(packmule [a-z ]+)`", table)) == set(leaves(cli.cli))


def test_every_setting_is_in_the_readme_with_its_default():
    table = README.partition("### Settings")[2].partition("\nDeploying")[0]
    rows = {
        name: line
        for line in table.splitlines()
        for name in re.findall(r"`([A-Z_]+)`", line.split("|")[1] if "|" in line else "")
    }
    assert set(rows) == {variable for variable, _ in VARIABLES.values()} | set(PLATFORM_VARIABLES.values())
    defaults = Settings()
    for name, (variable, _) in VARIABLES.items():
        default = getattr(defaults, name)
        if isinstance(default, int) and not isinstance(default, bool):
            assert f"| {default} |" in rows[variable]


def test_every_field_of_a_schedule_is_in_the_readme_and_its_example_is_one(tmp_path):
    table = README.partition("### Schedules")[2].partition("\nA span is")[0]
    named = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    fields = {*Schedule.__struct_fields__} - {"name", "owner", "source"}
    assert set(re.findall(r"`(\w+)`", " ".join(named))) == fields
    (tmp_path / "schedules.toml").write_text(re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)[0])
    (nightly,) = read_file(tmp_path / "schedules.toml")
    assert (nightly.name, nightly.overlap, nightly.jitter) == ("nightly", "skip", 120)


@pytest.fixture
def shell(server, client, tmp_path):
    """Runs a command beside modules `shop.py` and `kinds.py` that hold the README's examples."""
    module, program, kinds, batch = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "shop.py").write_text(module)
    (tmp_path / "kinds.py").write_text(kinds)
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "yearly.py").write_text(batch)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
        "PACKMULE_REDIS_URL": server.url,
        "PACKMULE_MODULES": "shop,kinds",
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    return run


def test_the_readmes_examples_run(shell, client):
    packmule = [sys.executable, "-m", "packmule"]
    shell(sys.executable, "program.py")
    assert client.llen("rq:queue:low") == 3
    assert client.zcard("rq:scheduled:high") == 1
    id = shell(*packmule, "enqueue", "call", "shop.report", "month=2026-11", "copies=2").strip()
    calls = [("reindex", "rows=3"), ("thumbnail_of_a_stranger", "path=a.png"), ("notify", "url=http://a")]
    calls.append(("settle", "account_id=1"))
    kinds = [
        shell(*packmule, "enqueue", "call", f"kinds.{name}", argument).strip() for name, argument in calls
    ]
    invoices = [shell(*packmule, "enqueue", "call", "kinds.invoice", f"account_id={n}") for n in (1, 1)]
    assert invoices[0] == invoices[1]
    refreshed = [
        shell(*packmule, "enqueue", "call", "kinds.refresh", "account_id=1", f"why={n}") for n in "ab"
    ]
    assert refreshed[0] == refreshed[1]
    assert b'"why":"b"' in client.hget(f"rq:job:{refreshed[0].strip()}", "data")
    shell(*packmule, "worker", "--burst", "--processes", "1")
    for kind in kinds:
        shell(*packmule, "job", "wait", kind)
    assert shell(*packmule, "job", "wait", id) == '"2 of 2026-11"\n'
    assert shell(sys.executable, "yearly.py") == "12\n"
    assert [state.counts.total for state in batches(client)] == [12]

    patterns = [
        re.sub(r"<[^>]+>", ".+", re.escape(key).replace(r"<", "<").replace(r">", ">"))
        for key in re.findall(
            r"`((?:rq|pm):[^`]+)`",
            "\n".join(line.split("|")[1] for line in KEYS.splitlines() if line.startswith("| `")),
        )
    ]
    for key in client.keys("*"):
        assert any(re.fullmatch(pattern, key.decode()) for pattern in patterns), key


def test_every_key_that_the_code_names_is_documented():
    rooms = ("coordination", "jobs", "observe", "scheduler", "worker")
    sources = [
        *(path for room in rooms for path in ROOT.glob(f"{room}/**/*.py")),
        *ROOT.glob("*/**/lua/*.lua"),
    ]
    named = {
        match.rstrip(":") for path in sources for match in re.findall(r"[\"'](pm:[a-z]+:?)", path.read_text())
    }
    assert named
    for name in named:
        assert f"`{name}" in KEYS, name


def test_links_in_the_documents_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_example_of_limits_runs(shell):
    assert shell(sys.executable, str(ROOT / "docs" / "examples" / "limits.py")).splitlines() == [
        *(f"login attempt {number}" for number in range(1, 6)),
        "too many: wait 60 s",
        "True, 40 left, all of it again in 36 s",
        "busy: try again in at most 30 s",
    ]


def test_the_example_of_the_cache_runs_and_runs_again(shell):
    for _ in range(2):
        assert shell(sys.executable, str(ROOT / "docs" / "examples" / "cache.py")).splitlines() == [
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
    assert shell(sys.executable, str(ROOT / "docs" / "examples" / "events.py")).splitlines() == [
        "ordered 1",
        "paid 1",
        "closed 1",
        "3 events are kept for other groups",
    ]


def test_the_example_of_a_batch_runs_beside_a_worker(shell, server, client, tmp_path):
    example = ROOT / "docs" / "examples" / "batch.py"
    (tmp_path / "batch.py").write_text(example.read_text())
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
        "PACKMULE_REDIS_URL": server.url,
        "PACKMULE_MODULES": "batch",
    }
    worker = [sys.executable, "-m", "packmule", "worker", "--processes", "1"]
    with subprocess.Popen(worker, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        assert shell(sys.executable, "-m", "batch") == "100 done, 0 failed\n"
        process.terminate()
    assert shell(sys.executable, "-m", "packmule", "worker", "--burst", "--processes", "1") == ""
