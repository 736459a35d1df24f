"""`packmule locks`: who holds a lock on the lock nodes, and releasing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.parameters import json_option
from packmule.terminal.say import say
from packmule.units import span

if TYPE_CHECKING:
    from packmule.coordination.locks.state import Held

SINGLETON = "singleton "
"""The prefix of the names of locks that workers take for singletons."""


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def locks(ctx: click.Context, json: bool) -> None:
    """Show locks and who holds them."""
    if ctx.invoked_subcommand is not None:
        return
    import msgspec

    from packmule.coordination.locks.state import lock_state
    from packmule.observe.blocked import behind_singleton
    from packmule.terminal import show

    app: App = ctx.obj
    state = lock_state(app.lock_nodes())
    singletons = [held.name for held in state.locks if held.name.startswith(SINGLETON)]
    keys = list(dict.fromkeys(name.removeprefix(SINGLETON) for name in singletons))
    waiting = behind_singleton(app.client, keys, app.queues()) if keys else {}
    if json:
        found = msgspec.to_builtins(state)
        for lock in found["locks"]:
            del lock["value"]  # whoever knows it can release the lock
            lock["waiting"] = waiting.get(lock["name"].removeprefix(SINGLETON))
        show.as_json(found)
        return
    rows = [(*_row(held), waiting.get(held.name.removeprefix(SINGLETON), "-")) for held in state.locks]
    show.table(("lock", "holder", "nodes", "ends in", "fence", "jobs waiting"), rows, "no lock is held")
    if state.faults:
        show.out.print()
        show.table(("lock node", "has no vote because"), list(state.faults.items()), "")
    for node in state.unfinished:
        say(f"{node} holds too many keys: only some were searched for locks")


@locks.command("release", cls=Audited)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@click.pass_obj
def locks_release(app: App, name: str, yes: bool) -> None:
    """Release the lock NAME.

    It is refused if the holder changes before you confirm.
    """
    from packmule.coordination.locks.state import LockNotReleased, lock_state, release

    clients = app.lock_nodes()
    state = lock_state(clients, name)
    if not state.locks:
        silent = "; ".join(f"{node}: {fault}" for node, fault in state.faults.items())
        raise LockNotReleased(
            f"no lock is called {name!r}: packmule locks lists those that are held"
            + (f" ({silent})" if silent else "")
        )
    held = max(state.locks, key=lambda each: each.nodes)
    say(
        f"{name}: held by process {held.process or 'unknown'} on {held.host}, on {held.nodes} of {held.of} "
        f"nodes, for {span(held.seconds)} more, with fence {held.fence or 'unknown'}."
    )
    if not yes and not click.confirm("Release it?"):
        raise LockNotReleased(f"{name} was not released")
    count = release(clients, held)
    say(
        f"{name} released on {count} of {held.of} nodes. Its holder is not notified: if alive, it may take "
        "the lock back at its next renewal, and only fence checks refuse its writes with "
        f"{held.fence or 'its token'}."
    )


def _row(held: Held) -> tuple[object, ...]:
    nodes = f"{held.nodes} of {held.of}" + ("" if held.is_held else ", no majority")
    return (
        held.name,
        f"{held.host}:{held.process or '?'}",
        nodes,
        span(held.seconds),
        str(held.fence or "-"),
    )
