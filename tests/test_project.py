"""The project around the working directory: its folder, its `.env`, and the changes of its code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from packmule import project
from packmule.config import Settings
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys
from packmule.tests.command_line import CommandLine, Done, complaint, environment_in, until
from packmule.tests.fork_server import Forked
from packmule.tests.worker.pools import is_alive

JOBS = """
import os
import time
from pathlib import Path

from packmule import job


@job
def greet() -> str:
    return os.environ["GREETING"]


@job
def wait_for(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.02)
    return "OLD"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a project in it, and the working directory two folders below."""
    below = tmp_path / "shop" / "deep" / "down"
    below.mkdir(parents=True)
    (tmp_path / "shop" / ".packmule").mkdir(mode=0o700)
    monkeypatch.chdir(below)
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    return tmp_path / "shop"


def test_the_nearest_data_folder_upwards_is_the_projects(home: Path) -> None:
    assert project.root() == home
    assert Settings.from_env().data_dir == home / ".packmule"
    (home / "deep" / ".packmule").mkdir()
    assert project.root() == home / "deep"
    (home / "deep" / "down" / ".packmule").mkdir()
    assert Settings.from_env().data_dir == Path(".packmule")


def test_a_variable_wins_over_the_project(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACKMULE_DATA_DIR", "/somewhere")
    assert Settings.from_env().data_dir == Path("/somewhere")


def test_the_search_ends_at_home_and_where_everybody_may_write(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    assert project.root() is None
    monkeypatch.setenv("HOME", "/root")
    (home / "deep").chmod(0o1777)
    assert project.root() is None
    assert project.data_dir() == Path(".packmule")
    (home / "deep").chmod(0o755)
    assert project.root() == home


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_no_project(home: Path) -> None:
    os.chown(home / ".packmule", 12345, 12345)
    assert project.root() is None


def test_a_working_directory_that_is_gone_has_no_project(home: Path) -> None:
    (home / "deep" / "down").rmdir()
    assert project.root() is None


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[CommandLine]:
    """Commands in a folder whose `.env` says all that there is to say."""
    changes = environment_in(tmp_path, None, PACKMULE_PROCESSES="1")
    for name in ("PACKMULE_DATA_DIR", "PACKMULE_MODULES"):
        del changes[name]
    changes["HOME"] = "/nowhere"
    (tmp_path / ".env").write_text('PACKMULE_MODULES=floor\nGREETING="good morning"\nPACKMULE_QUEUES=one\n')
    (tmp_path / "floor.py").write_text(JOBS)
    yield CommandLine(tmp_path, changes | {"PACKMULE_DATA_DIR": str(tmp_path / ".packmule")})
    EmbeddedServer(tmp_path / ".packmule").stop()


def below(shop: CommandLine, *words: str, **changes: str) -> Done:
    """A command two folders below, which has to find the project itself."""
    folder = shop.cwd / "deep" / "down"
    folder.mkdir(parents=True, exist_ok=True)
    (shop.cwd / ".packmule").mkdir(mode=0o700, exist_ok=True)
    environment = {name: value for name, value in shop.environment.items() if name != "PACKMULE_DATA_DIR"}
    return CommandLine(folder, environment | {"PACKMULE_DATA_DIR": ""}).run(*words, **changes)


def test_dot_env_is_read_also_from_below_and_the_environment_wins(shop: CommandLine) -> None:
    assert "floor.greet()" in shop.output("jobs")
    assert "floor.greet()" in below(shop, "jobs").stdout
    assert "there are one" in complaint(below(shop, "queue", "pause", "high"), 2)
    assert "there are two" in complaint(below(shop, "queue", "pause", "high", PACKMULE_QUEUES="two"), 2)
    assert f"embedded in {shop.cwd / '.packmule'}" in below(shop, "status").stdout


def test_a_dot_env_that_cannot_be_read_is_one_line(shop: CommandLine) -> None:
    (shop.cwd / ".env").write_bytes(b"A=\xff\n")
    assert ".env can't be read: " in complaint(shop.run("jobs"), 2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("just some words", "it is not NAME=value: write it like that, or comment it out with #"),
        ('TOKEN="hunter2', 'the value of TOKEN has no closing ": add one, or write it without quotes'),
        ("export TOKEN='hunter2", "the value of TOKEN has no closing ': add one, or write it without quotes"),
        ("TOKEN='hunter2' more", "something follows the quoted value of TOKEN: remove it, or quote all"),
        ("=hunter2", "it is not NAME=value"),
    ],
)
def test_a_broken_line_of_a_dot_env_is_named_without_its_secret(
    shop: CommandLine, line: str, said: str
) -> None:
    (shop.cwd / ".env").write_text(f"# ours\nA=1\n\n{line}\nB=2\n")
    text = complaint(shop.run("jobs"), 2)
    assert text.startswith(f"packmule: .env, line 4: {said}")
    assert "hunter2" not in text
    (shop.cwd / ".env").write_text(f"A=1\n{line}\n")
    assert f"{shop.cwd / '.env'}, line 2: " in complaint(below(shop, "jobs"), 2)


def test_all_that_a_dot_env_may_have_is_read(shop: CommandLine) -> None:
    (shop.cwd / ".env").write_text(
        "\ufeffPACKMULE_MODULES=floor\n# a comment\n\nexport A='x # y'\nB=\nC\nD=a b # c\nE=\"a\nb\"\n"
    )
    assert "floor.greet()" in shop.output("jobs")


def test_the_check_says_which_file_gives_a_setting(shop: CommandLine) -> None:
    (shop.cwd / ".env").write_text("PACKMULE_QUEUES=one\nPACKMULE_GRACE=1m\nREDIS_URL=\n")
    places = json.loads(shop.run("check", "--json", PACKMULE_GRACE="2m").stdout)["places"]
    assert (places["queues"], places["grace"], places["modules"]) == (".env", "environment", "default")
    found = below(shop, "check", "--json", PACKMULE_MODULES="floor").stdout
    assert json.loads(found)["places"]["queues"] == str(shop.cwd / ".env")
    text = shop.run("check").stdout
    (line,) = [line for line in text.splitlines() if line.startswith("PACKMULE_QUEUES ")]
    assert line.split() == ["PACKMULE_QUEUES", "one", ".env"]


@pytest.mark.parametrize("words", [("worker", "--reload", "--processes", "1", "--no-scheduler"), ("up",)])
def test_changes_are_taken_once_running_jobs_have_ended_and_broken_ones_are_not(
    shop: CommandLine, words: tuple[str, ...]
) -> None:
    log = shop.cwd / "run.log"
    code = shop.cwd / "floor.py"
    (shop.cwd / "Procfile").write_text("worker: packmule worker --no-scheduler\n")
    with (
        connect(None, shop.cwd / ".packmule") as client,
        log.open("w") as output,
        shop.started(*words, stderr=output) as process,
    ):
        until(lambda: client.scard(keys.WORKERS), "a worker", log.read_text)
        assert shop.output("enqueue", "call", "floor.greet", "--queue", "one", "--wait") == '"good morning"'
        id = shop.output("enqueue", "call", "floor.wait_for", f"path={shop.cwd / 'go'}", "--queue", "one")
        until(lambda: client.hget(keys.job_key(id), "status") == b"started", "the job", log.read_text)
        code.write_text("def broken(:\n")
        until(lambda: "the code from before that change" in log.read_text(), "the refusal", log.read_text)
        assert "can't import floor: SyntaxError" in log.read_text()
        workers = client.smembers(keys.WORKERS)
        code.write_text(JOBS.replace("OLD", "NEW"))
        until(lambda: log.read_text().count("floor.py has changed") >= 2, "the change", log.read_text)
        (shop.cwd / "go").touch()
        assert shop.output("job", "wait", id) == '"OLD"'
        until(lambda: client.smembers(keys.WORKERS) - workers, "a new worker", log.read_text)
        go = f"path={shop.cwd / 'go'}"
        again = shop.output("enqueue", "call", "floor.wait_for", go, "--queue", "one", "--wait")
        assert again == '"NEW"'
        workers = client.smembers(keys.WORKERS)
        environment = shop.cwd / ".env"
        said = environment.read_text()
        environment.write_text(f"{said}some words\n")
        broken = ".env, line 4: it is not NAME=value"
        until(lambda: broken in log.read_text(), "the refusal of the broken file", log.read_text)
        assert client.smembers(keys.WORKERS) == workers
        environment.write_text(said.replace("morning", "evening"))
        until(lambda: client.smembers(keys.WORKERS) - workers, "a new worker", log.read_text)
        assert shop.output("enqueue", "call", "floor.greet", "--queue", "one", "--wait") == '"good evening"'
        workers = client.smembers(keys.WORKERS)
        code.unlink()
        until(lambda: "floor.py is gone" in log.read_text(), "the loss", log.read_text)
        until(lambda: "can't import floor: No module named 'floor'" in log.read_text(), "that", log.read_text)
        assert client.smembers(keys.WORKERS) == workers
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
        assert client.scard(keys.WORKERS) == 0


def test_ctrl_c_leaves_the_job_of_a_reloading_worker_its_grace(shop: CommandLine) -> None:
    log = shop.cwd / "run.log"
    words = ["packmule", "worker", "--reload", "--processes", "1", "--no-scheduler"]
    with connect(None, shop.cwd / ".packmule") as client, log.open("w") as output:
        with Forked(
            words, cwd=shop.cwd, env=shop.environment, stdout=output, stderr=output, start_new_session=True
        ) as process:
            until(lambda: client.scard(keys.WORKERS), "a worker", log.read_text)
            id = shop.output("enqueue", "call", "floor.wait_for", f"path={shop.cwd / 'go'}", "--queue", "one")
            until(lambda: client.hget(keys.job_key(id), "status") == b"started", "the job", log.read_text)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            until(lambda: "the pool stops, and waits" in log.read_text(), "the drain", log.read_text)
            (shop.cwd / "go").touch()
            assert process.wait(60) == 0, log.read_text()
        assert client.hget(keys.job_key(id), "status") == b"finished"
        assert "cuts short" not in log.read_text()


TOLD = """
import os, signal, subprocess
from packmule.cli import main


class Told(subprocess.Popen):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        with open("pid", "w") as file:
            print(self.pid, file=file)
        os.kill(os.getpid(), signal.SIGTERM)  # before whoever started it knows it


subprocess.Popen = Told
main()
"""


def test_a_signal_that_comes_while_a_reloading_worker_starts_ends_that_worker(server, client, tmp_path):
    environment = environment_in(tmp_path, server.url)
    (tmp_path / "told.py").write_text(TOLD)
    words = ("worker", "--reload", "--processes", "1", "--no-scheduler")
    null = subprocess.DEVNULL
    told = [sys.executable, "told.py", *words]
    subprocess.run(told, cwd=tmp_path, env=environment, stdout=null, stderr=null, timeout=60, check=False)
    pid = int((tmp_path / "pid").read_text())
    is_left = is_alive(pid)
    if is_left:
        os.kill(pid, signal.SIGKILL)
    assert not is_left
