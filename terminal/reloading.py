"""Reloading: what runs is started anew when the project's code has changed, and can be imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.machinery import PathFinder
from operator import itemgetter
from pathlib import Path

import click

from packmule.config import first_environment
from packmule.terminal.app import App
from packmule.terminal.say import complain, say
from packmule.terminal.surroundings import ENV, dot_env

MORE_FILES = (".toml", ENV)
"""Files that are watched beside Python's: schedules, webhooks, presets, and the project's `.env`."""

LOOK_SECONDS = 0.1

RELOAD_HELP = "Restart when code or .env changes; running jobs get the grace period to end."


class Change:
    """A change of code to come: it calls `stop`, and then `is_due` says that what was stopped starts anew."""

    def __init__(self) -> None:
        self.is_due = False
        self.stop: Callable[[], None] = lambda: None


@contextmanager
def reloading(app: App) -> Iterator[Change]:
    """Look for a change while the block runs.

    Code that can't be imported is no change: `packmule jobs` says why, and what runs goes on.
    """
    from watchfiles import Change as Kind
    from watchfiles import PythonFilter
    from watchfiles import watch as changes

    change, ends, command = Change(), threading.Event(), [*own_command(), "jobs"]

    def watch() -> None:
        wanted = PythonFilter(ignore_paths=[app.settings.data_dir.resolve()], extra_extensions=MORE_FILES)
        try:
            for found in changes(*_folders(app), watch_filter=wanted, stop_event=ends, raise_interrupt=False):
                kind, path = min(found, key=itemgetter(1))
                say(f"{Path(path).name} {'is gone' if kind == Kind.deleted else 'has changed'}", err=True)
                environment = first_environment()
                if subprocess.call(command, stdout=subprocess.DEVNULL, env=environment) == 0:  # noqa: S603
                    change.is_due = True
                    change.stop()
                    return
                complain("still running the code from before that change")
        except OSError as error:
            complain(f"can't watch the code for changes: {error}")

    thread = threading.Thread(target=watch, name="reloading", daemon=True)
    thread.start()
    try:
        yield change
    finally:
        ends.set()
        thread.join()


def run_reloading(app: App) -> int:
    """Run this command without `--reload` in a process of its own, and anew after each change of code.

    Returns its exit code once it has ended by itself, or by a signal to this process. If this process is
    killed, that one gets SIGTERM.
    """
    from packmule.worker.kernel import die_with_parent

    arguments = [each for each in sys.argv[1 + is_of_django() :] if each != "--reload"]
    signals: list[int] = []
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda signum, _: signals.append(signum))
    while True:
        with reloading(app) as change:
            # Not of this group: it would get a terminal's Ctrl-C beside what is passed on, and end at once.
            child = subprocess.Popen(  # noqa: S603
                [*own_command(), *arguments],
                env=first_environment(),
                process_group=0,
                preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509  no locks
            )
            change.stop = child.terminate
            code = _ended(child, signals)
        if signals or not change.is_due:
            return code


def _ended(child: subprocess.Popen[bytes], signals: list[int]) -> int:
    """The exit code of a process, to which each of the `signals` to this one is passed on, early ones too."""
    passed_on = 0
    while True:
        try:
            return child.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            for _ in signals[passed_on:]:
                child.terminate()
            passed_on = len(signals)


def own_command() -> list[str]:
    """What starts a command of ours, as this one was."""
    script = _name().rpartition(" packmule")[0]
    return [sys.executable, *([script, "packmule"] if script else ["-m", "packmule"])]


def is_of_django() -> bool:
    """Whether this is `manage.py packmule`."""
    return _name().endswith(" packmule")


def _name() -> str:
    return click.get_current_context().find_root().info_name or ""


def _folders(app: App) -> set[Path]:
    """The working directory, and those of `.env` and of the user's modules that aren't installed."""
    here = Path.cwd()
    found = [PathFinder.find_spec(name.partition(".")[0]) for name in app.settings.modules]
    folders = {Path(each.origin).resolve().parent for each in found if each and each.origin}
    if dot_env().is_file():
        folders.add(dot_env().resolve().parent)
    return {here} | {
        each for each in folders if not each.is_relative_to(here) and "site-packages" not in each.parts
    }
