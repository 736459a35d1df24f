"""A fork while another thread imports: no module's lock stays behind in it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import textwrap
import threading

import pytest

from packmule.jobs import reader
from packmule.tests.worker import isolated_jobs
from packmule.tests.worker.pools import ended, pool, until
from packmule.worker.process.executors.imports import await_imports


@pytest.fixture
def slow_module(tmp_path, monkeypatch):
    """A module whose import says that it has begun, and lasts until it may end."""
    (tmp_path / "slow_module.py").write_text(
        textwrap.dedent(
            f"""
            import pathlib, time
            folder = pathlib.Path({str(tmp_path)!r})
            (folder / "begun").touch()
            while not (folder / "may_end").exists():
                time.sleep(0.01)
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    (tmp_path / "may_end").touch()


@pytest.fixture
def importing(slow_module):
    """A thread that is importing the module."""
    thread = threading.Thread(target=importlib.import_module, args=["slow_module"])
    thread.start()
    until((slow_module / "begun").exists)
    yield thread
    (slow_module / "may_end").touch()
    thread.join()
    del sys.modules["slow_module"]


def test_a_fork_imports_what_another_thread_was_importing(slow_module, importing):
    threading.Timer(0.2, (slow_module / "may_end").touch).start()
    await_imports(60)
    pid = os.fork()
    if not pid:
        signal.alarm(30)  # ends the process if it hangs
        importlib.import_module("slow_module")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_module_whose_import_blocks_holds_up_no_fork_for_long(importing):
    await_imports(0.1)
    assert importing.is_alive()


@pytest.mark.usefixtures("produce")
def test_an_isolated_job_loads_a_module_that_another_job_of_its_worker_was_loading(
    server, client, slow_module
):
    with pool(server, threads=2):
        first = isolated_jobs.load.enqueue(str(slow_module), "slow_module")
        until((slow_module / "begun").exists)
        second = isolated_jobs.load_isolated.enqueue(str(slow_module), "slow_module")
        until(lambda: reader.read(client, second).status == "started")
        (slow_module / "may_end").touch()
        assert [ended(client, id).status for id in (first, second)] == ["finished"] * 2
