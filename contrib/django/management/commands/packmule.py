"""`manage.py packmule`: the whole command line, with the project's apps loaded."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from packmule.cli import main


class Command(BaseCommand):  # type: ignore[misc]
    """Hands its arguments to `packmule`."""

    help = "Enqueue, perform and watch background jobs: `manage.py packmule --help`"
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run `packmule` with what follows its name, which isn't for Django's own parser."""
        before = ArgumentParser(add_help=False, allow_abbrev=False)
        for name in ("--settings", "--pythonpath"):  # which Django has read already
            before.add_argument(name)
        main(before.parse_known_args(argv[2:])[1], f"{argv[0]} packmule")

    def add_arguments(self, parser: Any) -> None:
        """Take what `call_command` gives."""
        parser.add_argument("arguments", nargs="*")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run `packmule` for `call_command("packmule", "status")`."""
        main([*options["arguments"]])
