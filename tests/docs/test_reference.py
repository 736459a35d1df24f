"""Reference pages are complete: every command, setting, option, field, event type and key, and no other."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from typing import get_args

import click
import msgspec
import pytest

import packmule
from packmule import Batch, Flow, JobHandle, cli
from packmule.config import PLATFORM_VARIABLES, VARIABLES, Settings
from packmule.coordination.cache.cache import Cache
from packmule.coordination.limits.rate_limit import TokenBucket
from packmule.coordination.streams.consumer import Consumer
from packmule.coordination.streams.stream import Stream
from packmule.errors import Error
from packmule.jobs import current, durable, registry
from packmule.jobs.image.facts import Fact
from packmule.jobs.image.presets import SHIPPED
from packmule.jobs.image.rendition import Fit, Rendition
from packmule.jobs.job_type import Traits
from packmule.jobs.options import (
    DEFAULT_FAILURE_TTL,
    DEFAULT_QUEUE,
    DEFAULT_RESULT_TTL,
    DEFAULT_TIMEOUT,
    Options,
)
from packmule.jobs.schedule import Schedule
from packmule.observe.events import TYPES
from packmule.observe.webhooks.endpoints import ENDS, Webhook
from packmule.terminal.enqueue import enqueue
from packmule.tests.docs.pages import PAGES, ROOT, named, page, rows
from packmule.tests.test_layers import FLOOR


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


def section(name: str, title: str) -> str:
    """The text of a page below the heading `title`, up to the next heading of two signs."""
    return page(name).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return [name for row in rows(text) for name in named(row[0])]


def test_every_command_is_on_its_page_once_and_no_other():
    assert sorted(first_cells(page("cli"))) == sorted(leaves(cli.cli))


def test_every_command_that_a_page_names_exists():
    commands = {*leaves(cli.cli), "packmule"}
    groups = {command.rpartition(" ")[0] for command in commands}
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for text in re.findall(r"(?:^\$ |`)(packmule(?: [a-z]+)+)", path.read_text(), flags=re.MULTILINE):
            words = text.split()
            known = any(" ".join(words[:length]) in commands | groups for length in (2, 3))
            assert known, f"{path.name}: {text}"


@pytest.mark.parametrize("name", PAGES)
def test_every_command_line_that_a_page_shows_is_valid(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in re.findall(r"^\$ (packmule .*)$", page(name), flags=re.MULTILINE):
        command: click.Command = cli.cli
        _, *arguments = shlex.split(line, comments=True)
        while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
            found = command.get_command(click.Context(command), arguments.pop(0))
            assert found is not None, line
            command = found
        command.make_context(line, arguments)


def test_every_setting_is_on_its_page_with_its_default():
    table = {name: row for row in rows(page("settings")) for name in named(row[0])}
    assert set(table) == {variable for variable, _ in VARIABLES.values()} | set(PLATFORM_VARIABLES.values())
    defaults = Settings()
    for name, (variable, _) in VARIABLES.items():
        match default := getattr(defaults, name):
            case bool() | None | "":
                continue
            case int() | float():
                shown = f"{default:g}" if isinstance(default, float) else str(default)
            case tuple():
                shown = ",".join(default) if name == "queues" else table[variable][1]
            case _:
                shown = str(default)
        assert table[variable][1].strip("`") == shown, variable


def test_every_variable_that_a_page_names_is_a_setting():
    variables = {variable for variable, _ in VARIABLES.values()} | {"PACKMULE_COMPLETE"}
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for variable in re.findall(r"PACKMULE_[A-Z_]+[A-Z]", path.read_text()):
            assert variable in variables or variable.startswith("PACKMULE_SECRET_"), (
                f"{path.name}: {variable}"
            )


def test_every_ready_made_job_that_users_enqueue_is_on_its_page_with_its_queue():
    table = {named(row[0])[0]: row[1] for row in rows(section("jobs", "The ready-made jobs"))}
    users = {name for name in leaves(enqueue, "") if name != " call"}
    assert {f" {name}" for name in table} == users
    for name, queue in table.items():
        module, _, attribute = registry.ready(name).rpartition(".")
        assert getattr(import_module(module), attribute).job.options.queue == queue, name


def test_every_option_of_a_job_is_on_its_page_with_its_default():
    table = section("jobs", "Options")
    expected = {field.name for kind in (Options, Traits) for field in fields(kind)}
    assert sorted(first_cells(table)) == sorted(expected)
    said = {named(row[0])[0]: row[1] for row in rows(table)}
    assert said["queue"] == f'`"{DEFAULT_QUEUE}"`'
    assert said["timeout"] == f"{DEFAULT_TIMEOUT:g}"
    assert said["result_ttl"] == f"{DEFAULT_RESULT_TTL:g}"
    assert said["failure_ttl"] == f"{DEFAULT_FAILURE_TTL / 86_400 / 365:g} year"


def test_every_function_of_the_running_job_is_on_the_page_of_jobs():
    said = {name.partition("(")[0] for name in first_cells(section("jobs", "Inside a job"))}
    functions = inspect.getmembers(current, inspect.isfunction)
    assert said == {f"current.{name}" for name, found in functions if found.__module__ == current.__name__}


def test_every_step_and_wait_of_the_running_job_is_on_the_page_of_steps():
    said = {re.match(r"current\.(\w+)", name)[1] for name in first_cells(page("steps").partition("## ")[0])}
    assert said == {
        name for name in current.__all__ if getattr(durable, name, None) is getattr(current, name)
    } - {"SignalTimeout"}


def members(kind: type) -> set[str]:
    """The public names of a class that are not those of a class it builds on outside of ours."""
    bases = [base for base in kind.__mro__ if not base.__module__.startswith("packmule")]
    inherited = {name for base in bases for name in dir(base)}
    return {name for name in dir(kind) if not name.startswith("_")} - inherited


def test_every_member_of_a_handle_is_on_the_page_of_jobs():
    text = section("jobs", "Handles")
    assert {name for name in members(JobHandle) if f"`{name}" not in text} == {"client"}


def test_every_method_that_a_page_lists_exists():
    said = {
        JobHandle: section("jobs", "Handles"),
        Batch: section("batches", "What you can ask for").partition("| method |")[2],
        Flow: section("flows", "What can be done with it").replace("`Flow.", "`"),
        TokenBucket: section("coordination", "Rate and concurrency limits").partition("| method |")[2],
        Cache: section("coordination", "Cache"),
    }
    for kind, text in said.items():
        listed = {name.partition("(")[0] for name in first_cells(text.partition("\n\n*")[0])}
        assert listed, kind
        assert {name for name in listed if name.islower() and not hasattr(kind, name)} == set(), kind
    for name in first_cells(section("coordination", "Streams")):
        kind, _, method = name.partition("(")[0].partition(".")
        assert hasattr({"Stream": Stream, "Consumer": Consumer}[kind], method), name


def test_every_argument_of_a_new_batch_is_on_the_page_of_batches():
    listed = first_cells(section("batches", "What you can ask for").partition("| method |")[0])
    assert {*inspect.signature(Batch.create).parameters} - {*listed} <= {"client"}


def test_every_name_that_packmule_exports_is_on_its_page():
    text = page("jobs") + page("batches") + page("flows")
    assert [name for name in packmule.__all__ if not re.search(rf"\b{name}\b", text)] == []
    errors = first_cells(section("jobs", "Errors"))
    exported = [getattr(packmule, name) for name in packmule.__all__ if name != "Error"]
    assert {found.__name__ for found in exported if inspect.isclass(found) and issubclass(found, Error)} == {
        *errors
    }
    for row in rows(section("jobs", "Errors")):
        assert {str(getattr(packmule, name).exit_code) for name in named(row[0])} == {row[2]}


def test_every_field_of_a_schedule_is_on_its_page():
    expected = {*Schedule.__struct_fields__} - {"name", "owner", "source"}
    table = section("schedules", "Fields")
    assert sorted(first_cells(table)) == sorted(expected)
    defaults = {field.name: field.default for field in msgspec.structs.fields(Schedule)}
    said = {name: row[2] for row in rows(table) for name in named(row[0])}
    for name in ("tz", "misfire", "overlap"):
        assert said[name] == f'`"{defaults[name]}"`'


def test_every_field_of_a_webhook_and_every_type_of_event_is_on_its_page():
    assert first_cells(section("events", "Webhooks")) == [*Webhook.__struct_fields__]
    assert sorted(first_cells(section("events", "Types"))) == sorted(TYPES)
    assert set(ENDS) <= set(TYPES)


def test_every_field_of_a_rendition_and_every_fact_is_on_its_page():
    sizes = section("images", "Sizes")
    fields = sorted(Rendition.__struct_fields__)
    assert sorted(name for name in first_cells(sizes) if name not in get_args(Fit)) == fields
    assert set(first_cells(sizes)) - set(fields) == set(get_args(Fit))
    assert first_cells(section("images", "Facts")) == list(get_args(Fact))
    assert {f"`{name}`" for name in SHIPPED} <= set(section("images", "Presets").split())


def test_the_house_is_drawn_with_every_room_the_higher_floors_first():
    drawn = re.findall(r"^(\w+)(?:/|\.py) ", section("internals", "The house"), flags=re.MULTILINE)
    assert {*drawn} == {*FLOOR} - {"__main__"}
    assert drawn == sorted(drawn, key=FLOOR.__getitem__)


def test_every_key_that_the_code_names_is_documented():
    rooms = ("coordination", "jobs", "observe", "scheduler", "worker")
    sources = [
        path for room in rooms for suffix in ("py", "lua") for path in ROOT.glob(f"{room}/**/*.{suffix}")
    ]
    keys = {
        match.rstrip(":") for path in sources for match in re.findall(r"[\"'](pm:[a-z]+:?)", path.read_text())
    }
    assert keys
    for key in keys:
        assert f"`{key}" in page("redis-keys"), key
