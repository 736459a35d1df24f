"""Every command's help is complete, fits the line, and loads nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from packmule.cli import cli

LINE = 80
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
