"""Packmule in a real Django project: its commands, connections, transactions, and the backend of tasks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packmule.testing import private_server
from packmule.tests import wheels
from packmule.tests.command_line import UNSET, free_port, until
from packmule.tests.docs.pages import modules

pytestmark = pytest.mark.xdist_group("django")

ROOT = Path(__file__).parents[2]
PROJECT = Path(__file__).with_name("django_project")
PYENV = Path("~/.pyenv/versions").expanduser()
TASKS = "from orders import tasks; from orders.tasks import *"


class Project:
    """A copy of the project, with a database and a server of its own."""

    def __init__(self, home: Path, url: str, python: str) -> None:
        self.home, self.python = home, python
        shutil.copytree(PROJECT, home / "project")
        ours = {"SHOP_DATA": str(home), "SHOP_REDIS": url, "DJANGO_SETTINGS_MODULE": "shop.settings"}
        on_path = {"PYTHONPATH": str(ROOT)} if python == sys.executable else {}
        given = {**os.environ, **UNSET, **ours, **on_path}
        self.environment = {name: value for name, value in given.items() if value is not None}

    def manage(self, *words: str, code: int = 0, **changes: str) -> str:
        """What a command of `manage.py` prints."""
        done = subprocess.run(
            [self.python, "manage.py", *words],
            cwd=self.home / "project",
            env=self.environment | changes,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run(self, code: str) -> str:
        """What a program prints that begins as a view of the project would."""
        program = (
            "import django; django.setup()\nfrom orders.jobs import *\nfrom orders.models import Order\n"
        )
        done = subprocess.run(
            [self.python, "-c", program + textwrap.dedent(code)],
            cwd=self.home / "project",
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    @property
    def library(self) -> str:
        """The library of tasks."""
        return "django_tasks" if self.python == sys.executable else "django.tasks"

    @contextmanager
    def worker(self, *options: str) -> Iterator[None]:
        """A worker of the project, until the block ends."""
        command = [self.python, "manage.py", "packmule", "worker", "--processes", "1", *options]
        process = subprocess.Popen(command, cwd=self.home / "project", env=self.environment)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def newer_python() -> str | None:
    """A Python for Django 6, which needs 3.12."""
    on_path = map(shutil.which, ("python3.14", "python3.13", "python3.12"))
    for found in (*on_path, *PYENV.glob("3.1[2-9]*/bin/python3")):
        if found and subprocess.run([found, "-c", "import venv, ensurepip"], check=False).returncode == 0:
            return str(found)
    return None


def with_django_6(folder: Path) -> str:
    """The Python of an environment with Django 6 and our wheel."""
    python = newer_python()
    if python is None:
        pytest.skip("Django 6 needs Python 3.12, which is not here")
    bin = folder / "venv" / "bin"
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True, timeout=120)
    what = [f"{wheels.built(wheels.source(folder))}[dashboard]", "django>=6,<7"]
    subprocess.run([bin / "python", "-m", "pip", "install", "--quiet", *what], check=True, timeout=400)
    return str(bin / "python")


@pytest.fixture(scope="module", params=["5.2", "6"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("shop")
    python = with_django_6(folder) if request.param == "6" else sys.executable
    with private_server() as server:
        made = Project(folder, server.url, python)
        made.manage("migrate", "--verbosity", "0")
        with made.worker():
            yield made


@pytest.fixture
def signals(project: Project) -> Iterator[Callable[[], list[list[str]]]]:
    path = project.home / "signals"
    path.unlink(missing_ok=True)
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()]


def test_the_guide_of_the_page_works_as_it_stands(project: Project, tmp_path: Path):
    """The page's own settings, jobs and tasks."""
    guide = modules("django")
    guide["tasks.py"] = guide["tasks.py"].replace("django.tasks", project.library)
    with private_server() as server:
        here = Project(tmp_path, server.url, project.python)
        apps = here.home / "project"
        settings = "from shop.settings import *\nINSTALLED_APPS.remove('packmule.contrib.django')\n"
        (apps / "shop" / "guide.py").write_text(settings + guide["settings.py"])
        for name in ("jobs.py", "tasks.py"):
            (apps / "orders" / name).write_text(guide[name])
        here.environment |= {"DJANGO_SETTINGS_MODULE": "shop.guide", "PACKMULE_REDIS_URL": server.url}
        here.manage("migrate", "--verbosity", "0")
        with here.worker():
            said = here.run("""
                from orders.tasks import report
                order = Order.objects.create()
                pay.enqueue(order.pk).result(60)
                order.refresh_from_db()
                result = report.enqueue("2026-11")
                while not result.is_finished:
                    result.refresh()
                print(order.paid, result.return_value)
            """)
    assert said == "True the report of 2026-11"


def test_jobs_of_the_apps_are_found_and_run_with_the_projects_models(project: Project):
    said = project.run("""
        order = Order.objects.create()
        handle = pay.enqueue(order.pk)
        assert handle.result(60) == order.pk
        order.refresh_from_db()
        print(order.paid, order.payer == handle)
    """)
    assert said == "True True"


def test_a_job_of_a_transaction_is_sent_when_that_is_committed(project: Project):
    said = project.run("""
        from django.db import transaction
        from packmule import Client
        from packmule.errors import NotFound

        def is_known(handle):
            try:
                return bool(handle.status)
            except NotFound:
                return False

        with transaction.atomic():
            order = Order.objects.create()
            handle = pay.enqueue(order.pk)
            with transaction.atomic():
                inner = pay.enqueue(order.pk)
            print(is_known(handle), is_known(inner))
        print(is_known(handle), is_known(inner), handle.result(60) == order.pk)
        try:
            with transaction.atomic():
                dropped = pay.enqueue(order.pk)
                raise ValueError
        except ValueError:
            print(is_known(dropped))
    """)
    assert said.splitlines() == ["False False", "True True True", "False"]


def test_a_call_that_does_not_fit_is_refused_within_the_transaction(project: Project):
    said = project.run("""
        from django.db import transaction
        from packmule import InvalidCall
        try:
            with transaction.atomic():
                Order.objects.create(payer="never")
                pay.enqueue("three")
        except InvalidCall as error:
            print(error, Order.objects.filter(payer="never").count())
    """)
    assert said == "orders.jobs.pay: argument order: expected `int`, got `str` 0"


@pytest.fixture
def postgres() -> Iterator[str]:
    """The folder of the socket of a Postgres server, which doesn't run as root."""
    pytest.importorskip("psycopg_pool")
    folders = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))), os.environ["PATH"]]
    initdb = shutil.which("initdb", path=os.pathsep.join(folders))
    if initdb is None:
        pytest.skip("Postgres is not here")
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    home = tempfile.mkdtemp(prefix="shop")
    if nobody:
        os.chown(home, 65534, 65534)
    data, options = f"{home}/data", f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off"
    pg_ctl = [str(Path(initdb).with_name("pg_ctl")), "-D", data, "-l", f"{home}/log", "-w"]

    def run(*command: str) -> None:
        subprocess.run(command, check=True, cwd=home, stdout=subprocess.DEVNULL, timeout=120, **nobody)  # type: ignore[call-overload]

    run(initdb, "-D", data, "-U", "shop", "-A", "trust", "--no-sync")
    run(*pg_ctl, "-o", options, "start")
    os.chmod(home, 0o755)  # noqa: PTH101  mkdtemp's is the owner's alone
    yield home
    run(*pg_ctl, "-m", "immediate", "stop")
    shutil.rmtree(home)


def test_isolated_jobs_leave_the_workers_pool_of_connections_alone(tmp_path: Path, postgres: str):
    import psycopg_pool

    with private_server() as server:
        project = Project(tmp_path, server.url, sys.executable)
        installed = Path(psycopg_pool.__file__).parents[1]
        project.environment |= {"SHOP_POSTGRES": postgres, "PYTHONPATH": f"{ROOT}{os.pathsep}{installed}"}
        project.manage("migrate", "--verbosity", "0")
        with project.worker():
            done = project.run(
                """
                order = Order.objects.create().pk
                waits = {"timeout": 60}
                paid = [pay.enqueue(order).result(**waits) == order for _ in range(2)]
                apart = [count_apart.enqueue().result(**waits)[0] for _ in range(2)]
                print(paid, apart, pay.enqueue(order).result(**waits) == order)
                """
            )
    assert done == "[True, True] [1, 1] True"


def test_isolated_and_async_jobs_have_connections_of_their_own(project: Project):
    said = project.run("""
        Order.objects.create()
        plain, worker = kept.enqueue().result(60)
        counted, process = count_apart.enqueue().result(60)
        later, same = kept.enqueue().result(60)
        print(counted == Order.objects.count(), process != worker, same == worker)
        print(count_async.enqueue().result(60) == Order.objects.count())
    """)
    assert said.splitlines() == ["True True True", "True"]


def test_the_whole_command_line_is_there(project: Project):
    assert "Usage: manage.py packmule" in project.manage("packmule", "--help")
    said = project.manage("packmule", "enqueue", "kept", code=2)
    assert "to enqueue yours, use manage.py packmule enqueue call orders.jobs.kept" in said
    elsewhere = {"PACKMULE_REDIS_URL": "", "PACKMULE_DATA_DIR": str(project.home / "elsewhere")}
    said = project.manage("packmule", "status", **elsewhere)
    assert said.count("start one with: manage.py packmule ") == 2
    id = (
        project.manage("packmule", "enqueue", "call", "orders.jobs.kept").strip().splitlines()[-1].split()[-1]
    )
    assert project.manage("packmule", "job", "show", id)
    said = project.manage("packmule", "job", "show", "nosuch", code=2)
    assert "no job has the id nosuch" in said
    assert "Traceback" not in said


def test_the_settings_are_named_as_at_other_commands(project: Project):
    unset = {"DJANGO_SETTINGS_MODULE": "no.such"}
    project.manage("packmule", "enqueue", "call", "orders.jobs.kept", "--settings", "shop.settings", **unset)


def test_up_starts_processes_that_know_the_project(project: Project, tmp_path: Path):
    command = [project.python, "manage.py", "packmule", "up"]
    with private_server() as server:
        here = Project(tmp_path, server.url, project.python)
        here.manage("migrate", "--verbosity", "0")
        environment = here.environment | {"PORT": str(free_port()), "PACKMULE_PROCESSES": "1"}
        process = subprocess.Popen(command, cwd=here.home / "project", env=environment)
        try:
            assert here.run("print(pay.enqueue(7).result(60))") == "7"
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


def test_the_environment_goes_before_the_projects_settings(project: Project):
    words = ("packmule", "enqueue", "call", "orders.jobs.kept")
    said = project.manage(*words, PACKMULE_MODULES="orders.models", code=2)
    assert "orders.jobs.kept" in said


def test_a_misspelt_setting_is_named_with_the_nearest(project: Project):
    settings = project.home / "project" / "shop" / "misspelt.py"
    settings.write_text("from shop.settings import *\nPACKMULE = {'REDIS_ULR': 'x'}\n")
    said = project.manage("check", DJANGO_SETTINGS_MODULE="shop.misspelt", code=1)
    assert "PACKMULE has no setting 'REDIS_ULR': did you mean 'REDIS_URL'?" in said


def test_a_setting_of_none_is_as_if_it_were_not_there(project: Project):
    settings = project.home / "project" / "shop" / "nothing.py"
    settings.write_text("from shop.settings import *\nPACKMULE['MAIL_URL'] = None\n")
    project.manage("packmule", "status", DJANGO_SETTINGS_MODULE="shop.nothing")


def test_a_queue_of_tasks_that_no_worker_serves_fails_the_projects_check(project: Project):
    settings = project.home / "project" / "shop" / "queues.py"
    settings.write_text("from shop.settings import *\nTASKS['default']['QUEUES'] += ['slow']\n")
    project.manage("check")
    said = project.manage("check", DJANGO_SETTINGS_MODULE="shop.queues", code=1)
    assert "packmule.E001" in said
    assert "'slow', which PACKMULE_QUEUES lacks" in said


def test_tasks_run_and_their_results_are_read_back(project: Project):
    said = project.run(f"""
        {TASKS}
        from orders.waiting import ended

        sent = add.enqueue(2, b=3)
        assert (sent.status, sent.args, sent.kwargs, sent.is_finished) == ("READY", [2], {{"b": 3}}, False)
        found = ended(add.get_result(sent.id))
        assert found.return_value == 5 and found.attempts == 1 and found.worker_ids[0]
        assert found.enqueued_at <= found.started_at == found.last_attempted_at <= found.finished_at
        assert (found.args, found.kwargs, found.errors, found.backend) == ([2], {{"b": 3}}, [], "default")

        high = ended(multiply.enqueue(6, 7))
        assert high.return_value == 42 and multiply.get_result(high.id).task.queue_name == "high"
        assert multiply.get_result(high.id).task.priority == 10

        told = ended(attempt.enqueue("hello"))
        assert told.return_value == ["hello", 1, told.id, "RUNNING"], told.return_value
    """)
    assert said == ""


def test_tasks_that_fail_say_of_what_and_by_which_class(project: Project):
    project.run(f"""
        {TASKS}
        from orders.waiting import ended

        failed = ended(fail.enqueue())
        (error,) = failed.errors
        assert failed.status == "FAILED" and error.exception_class is KeyError, error
        assert "no such order" in error.traceback and failed.attempts == 1
        try:
            failed.return_value
        except ValueError as refusal:
            assert str(refusal) == "Task failed"

        twice = ended(fail_twice.enqueue())
        assert twice.attempts == 2 and twice.errors[0].exception_class is ValueError
    """)


def test_a_task_waits_for_its_time_and_for_its_transaction(project: Project):
    said = project.run(f"""
        {TASKS}
        from datetime import timedelta
        from django.db import transaction
        from django.utils import timezone
        later = add.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(1)
        assert add.get_result(later.id).status == "READY"
        from packmule import Client
        print(Client.default().read(later.id).status)
        try:
            with transaction.atomic():
                dropped = add.enqueue(1)
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        try:
            add.get_result(dropped.id)
        except Exception as error:
            print(type(error).__name__)
    """)
    assert said.splitlines() == ["scheduled", "TaskResultDoesNotExist"]


def test_results_of_others_do_not_exist_and_those_of_another_task_do_not_match(project: Project):
    said = project.run(f"""
        {TASKS}
        for asked in (lambda: add.get_result("nosuch"), lambda: add.get_result(kept.enqueue()),
                      lambda: add.get_result(what.enqueue(1).id)):
            try:
                asked()
            except Exception as error:
                print(type(error).__name__)
    """)
    assert said.splitlines() == ["TaskResultDoesNotExist", "TaskResultDoesNotExist", "TaskResultMismatch"]


def test_every_thread_reads_results_and_no_signal_is_sent_twice(project: Project, signals):
    """Django makes a backend for each thread, and servers a thread for each request."""
    said = project.run(f"""
        {TASKS}
        import time
        from concurrent.futures import ThreadPoolExecutor
        from packmule import hooks

        def in_thread(call, *args):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(call, *args).result()

        add.enqueue(1)
        before = len(hooks.performers)
        sent = in_thread(add_later.enqueue, 2)
        until = time.monotonic() + 60
        while not in_thread(add_later.get_result, sent.id).is_finished:
            assert time.monotonic() < until
        inner = in_thread(add_later.get_result, sent.id).return_value
        while not in_thread(add.get_result, inner).is_finished:
            assert time.monotonic() < until
        assert len(hooks.performers) == before
        print(inner)
    """)
    assert sorted(line[0] for line in signals() if line[1] == said) == ["enqueued", "finished", "started"]


@pytest.mark.parametrize("value", ["object()", "{1, 2}", "b'\\xff'"])
def test_what_json_cannot_carry_is_refused_before_it_is_sent(project: Project, value: str):
    said = project.run(f"""
        {TASKS}
        try:
            what.enqueue({value})
        except (TypeError, ValueError) as error:
            print("refused")
    """)
    assert said == "refused"


def test_tasks_are_refused_that_the_backend_cannot_run(project: Project):
    said = project.run(f"""
        {TASKS}
        from datetime import datetime
        naive = datetime(2030, 1, 1)
        for change in ({{"queue_name": "nowhere"}}, {{"priority": 101}}, {{"run_after": naive}}):
            try:
                add.using(**change)
            except Exception as error:
                print(type(error).__name__.removesuffix("Error"), error)
        try:
            (lambda: task(lambda: None))()
        except Exception as error:
            print(type(error).__name__.removesuffix("Error"))
    """)
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == ["InvalidTask"] * 4
    assert "nowhere" in lines[0]


def test_signals_are_sent_where_it_is_enqueued_and_where_it_runs(project: Project, signals):
    said = project.run(f"""
        {TASKS}
        from orders.waiting import ended

        results = [
            ended(each)
            for each in [add.enqueue(1), multiply.enqueue(1, 2), fail.enqueue(), fail_twice.enqueue()]
        ]
        print(*(each.id for each in results))
    """)
    heard = signals()
    assert {sender for *_, sender in heard} == {"PackmuleBackend"}
    by_id = [[tuple(line[::2]) for line in heard if line[1] == id] for id in said.split()]
    done = [("enqueued", "READY"), ("started", "RUNNING"), ("finished", "SUCCESSFUL")]
    failed = [*done[:2], ("finished", "FAILED")]
    twice = [*done[:2], *failed[1:]]
    assert list(map(sorted, by_id)) == list(map(sorted, [done, done, failed, twice]))


OUTAGE = """
import os, signal, time
from contextlib import contextmanager
from pathlib import Path

from packmule import hooks


@hooks.perform
@contextmanager
def kill_redis(job):
    ends = Path(os.environ["SHOP_DATA"], "outage")
    if ends.exists():
        os.kill(int(ends.read_text()), signal.SIGKILL)
        ends.unlink()
    yield
"""


def test_a_task_runs_though_redis_is_away_when_it_begins(project: Project, tmp_path: Path):
    with private_server() as server:
        here = Project(tmp_path, server.url, project.python)
        here.manage("migrate", "--verbosity", "0")
        (here.home / "project" / "outage.py").write_text(OUTAGE)
        here.environment["PACKMULE_HOOKS"] = "outage"
        outage, signals = here.home / "outage", here.home / "signals"
        with here.worker():
            for name in ("attempt", "attempt_later"):
                outage.write_text(str(server.pid()))
                id = here.run(f"{TASKS}\nprint({name}.enqueue('hello').id)")
                begins = json.dumps(["started", id, "RUNNING"])[:-1]
                until(lambda begins=begins: begins in signals.read_text(), "the start without Redis")
                server.ensure()
                said = here.run(f"""
                    {TASKS}
                    from orders.waiting import ended
                    found = ended({name}.get_result("{id}"))
                    print([each.traceback for each in found.errors] or found.return_value)
                """)
                assert said == f"['hello', 1, '{id}', 'RUNNING']"
