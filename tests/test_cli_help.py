"""Every command's help is complete, fits the line, and loads nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from packmule.cli import SECTIONS, cli
from packmule.config import child_environment
from packmule.testing import private_server

LINE = 80
HEAVY = {
    *("PIL", "aiosmtpd", "dotenv", "duckdb", "fsspec", "honcho", "jinja2", "packmule.jobs.email"),
    *("packmule.jobs.image", "rq", "starlette", "uvicorn", "watchfiles"),
}
MOST_OF_HELP, MOST_OF_STATUS = 160, 70
"""Modules: all of the one, and ours of the other."""

NEEDLESS = {"asyncio", "msgspec", "redis", "rich", "rq"}


def commands(group: click.Group, path: str = "packmule") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


COMMANDS = list(commands(cli))


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_a_commands_help_fits_the_line_and_explains_each_option(path: str, command: click.Command) -> None:
    said = command.get_short_help_str(LINE - len("  scheduler  "))
    assert said[0].isupper()
    assert "..." not in said, f"{path} is cut: {said}"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.opts[0]} has no help"
    text = command.get_help(click.Context(command, info_name=path))
    assert max(map(len, text.splitlines())) <= LINE


def test_no_line_of_the_list_of_commands_is_cut() -> None:
    lines = cli.get_help(click.Context(cli, info_name="packmule", terminal_width=LINE - 2)).splitlines()
    assert [line for line in lines[1:] if line.endswith("...")] == []


def test_the_list_of_commands_says_of_each_what_its_own_help_says() -> None:
    context = click.Context(cli)
    for section in SECTIONS.values():
        for name, said in section.items():
            command = cli.get_command(context, name)
            assert command is not None
            assert command.get_short_help_str(LINE) == said


def loaded(words: list[str], **environment: str) -> set[str]:
    """The modules that a command has loaded at its end, but those of OpenTelemetry, which redis-py loads."""
    program = (
        "import sys; from packmule.cli import main\n"
        f"sys.argv = ['packmule', *{words}]\n"
        "try: main()\n"
        "except SystemExit: print(); print(*sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=child_environment(**environment)
    )
    return {name for name in done.stdout.splitlines()[-1].split() if not name.startswith("opentelemetry")}


def test_commands_load_few_modules() -> None:
    """What their start-up takes grows with these; there is some room for other versions of Python."""
    help = loaded(["--help"])
    assert {name for name in help if name.startswith("packmule.terminal.")} == {"packmule.terminal.say"}
    assert len(help) < MOST_OF_HELP
    with private_server() as server:
        status = loaded(["status"], PACKMULE_REDIS_URL=server.url)
    assert len({name for name in status if name.startswith("packmule.")}) < MOST_OF_STATUS


def test_status_loads_no_rq_and_nothing_that_only_others_need() -> None:
    """Its start-up, which `benchmarks/start_up.py` measures."""
    program = (
        "import sys; from packmule.cli import main\n"
        "sys.argv = ['packmule', 'status']\n"
        "try: main()\n"
        f"except SystemExit: print('loaded:', *sorted({HEAVY} & set(sys.modules)))"
    )
    with private_server() as server:
        environment = child_environment(PACKMULE_REDIS_URL=server.url)
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_help_loads_nothing_that_it_does_not_need() -> None:
    for words in ([], ["status"], ["worker"], ["enqueue", "email"], ["schedule", "add"], ["job", "show"]):
        program = (
            "import sys; from packmule.cli import main\n"
            f"sys.argv = ['packmule', *{words}, '--help']\n"
            "try: main()\n"
            f"except SystemExit: print('loaded:', *sorted({NEEDLESS} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert "Usage: packmule" in done.stdout
        assert done.stdout.splitlines()[-1] == "loaded:", words
