"""`packmule suppression`: the addresses and domains that get no mail."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited, audited
from packmule.terminal.parameters import Duration, json_option
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.jobs.email.suppression.store import Suppressed, Suppressions

LONGEST_NAME = 60
"""Characters that are shown of a name that nobody can have."""


@click.group()
def suppression() -> None:
    """Manage the addresses and domains that get no mail."""


@suppression.command("list")
@click.argument("names", metavar="[ADDRESS|DOMAIN...]", nargs=-1)
@click.option("--domain", help="Only addresses of this domain.")
@click.option("--source", help="Only those from this source: operator, import, refused, bounce, ...")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="At most this many."
)
@json_option
@click.pass_obj
def suppression_list(
    app: App, names: tuple[str, ...], domain: str | None, source: str | None, limit: int, json: bool
) -> None:
    """List suppressed addresses and domains, with reason and expiry.

    With names, list only those that are suppressed, by themselves or by their domain.
    """
    from packmule.terminal import show

    store = _store(app)
    found: list[Suppressed] = []
    if names:
        found = [each for name in names if (each := store.find(name)) is not None]
    else:
        for each in store:
            is_of = domain is None or each.name.endswith(f"@{domain.lower()}")
            if is_of and source in (None, each.source):
                found.append(each)
                if len(found) == limit:
                    complain(f"only the first {limit}; for more: --limit, or packmule suppression export")
                    break
    if json:
        show.as_json([each._asdict() for each in found])
        return
    rows = [
        (
            _name(each),
            each.reason,
            each.source,
            show.ago(each.since or None),
            "forever" if each.until is None else show.ago(each.until),
        )
        for each in sorted(found, key=lambda each: -each.since)
    ]
    show.table(("who", "reason", "source", "since", "until"), rows, "nobody is suppressed", shorten="reason")


@suppression.command("add", cls=Audited)
@click.argument("names", metavar="ADDRESS|DOMAIN...", nargs=-1, required=True)
@click.option("--reason", default="no reason given", help="Record this reason.")
@click.option("--for", "seconds", type=Duration(), help="For how long: 30d.  [default: forever]")
@click.pass_obj
def suppression_add(app: App, names: tuple[str, ...], reason: str, seconds: float | None) -> None:
    """Stop sending mail to addresses or whole domains."""
    from packmule.jobs.email.suppression.addresses import name_of, shown

    store = _store(app)
    for name in [name_of(each) for each in names]:
        is_new = store.add(name, reason, "operator", seconds)
        say(f"{shown(name)} {'gets no mail' if is_new else 'was already suppressed'}")


@suppression.command("remove", cls=Audited)
@click.argument("names", metavar="ADDRESS|DOMAIN...", nargs=-1, required=True)
@click.pass_obj
def suppression_remove(app: App, names: tuple[str, ...]) -> int:
    """Allow mail to addresses or domains again.

    Exit with 2 if one was not suppressed.
    """
    from packmule.jobs.email.suppression.store import NotSuppressed

    store, code = _store(app), 0
    for name in names:
        try:
            store.remove(name)
        except NotSuppressed as error:  # the others are removed all the same
            complain(f"{error}")
            code = error.exit_code
        else:
            say(f"{name} gets mail again")
    return code


@suppression.command("import", cls=Audited)
@click.argument("file")
@click.option("--for", "seconds", type=Duration(), help="For how long, unless the file says: 30d.")
@click.pass_obj
def suppression_import(app: App, file: str, seconds: float | None) -> int:
    """Suppress the addresses and domains in a CSV file.

    A file with one address per line also works. FILE may be - for standard input. Exit with 1 if a row was
    bad.
    """
    from packmule.jobs.email.suppression.table import InvalidTable, bring_in

    if file == "-":
        done = bring_in(sys.stdin, _store(app), seconds)
    elif not Path(file).is_file():
        raise InvalidTable(f"there is no file {file}; - is standard input")
    else:
        with Path(file).open(encoding="utf-8-sig", newline="") as opened:
            done = bring_in(opened, _store(app), seconds)
    audited(lambda: {"added": done.added, "bad": done.bad})
    over = f", {done.over:,} had expired" if done.over else ""
    say(f"{done.added:,} added, {done.known:,} were already suppressed{over}")
    for reason in done.reasons:
        complain(reason)
    if done.bad > len(done.reasons):
        complain(f"{done.bad:,} rows are bad; these are the first {len(done.reasons)}")
    return int(bool(done.bad))


@suppression.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@click.pass_obj
def suppression_export(app: App, file: str) -> None:
    """Write the suppression list as CSV to FILE or standard output."""
    from packmule.jobs.email.suppression.table import export

    if file == "-":
        export(_store(app), sys.stdout)
        return
    with Path(file).open("w", encoding="utf-8", newline="") as opened:
        count = export(_store(app), opened)
    say(f"{count:,} written to {file}")


def _name(each: Suppressed) -> str:
    """A name as people write it; one that is no address, since it's too long for any, is cut."""
    from packmule.jobs.email.message.addresses import MAX_ADDRESS
    from packmule.jobs.email.suppression.addresses import shown

    name = shown(each.name)
    return name if len(name) <= MAX_ADDRESS else f"{name[:LONGEST_NAME]}…"


def _store(app: App) -> Suppressions:
    from packmule.jobs.email.suppression.store import Suppressions

    return Suppressions(app.client)
