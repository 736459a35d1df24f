"""`packmule user`: who may come in to the dashboard, as what, and how they prove it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited, audited
from packmule.terminal.parameters import Duration, json_option
from packmule.terminal.say import say, say_lines

if TYPE_CHECKING:
    from packmule.dashboard.users.store import Users

F = TypeVar("F", bound=Callable[..., Any])

ROLES = click.Choice(["viewer", "operator", "admin"])

name_argument = click.argument("name")
payloads_option = click.option(
    "--payloads/--no-payloads",
    default=None,
    help="Whether to show arguments, results and logs of jobs.  [default: for admins]",
)
stdin_option = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="Read the password from standard input."
)
force_option = click.option("--force", is_flag=True, help="Do it even if no admin is left.")


@click.group()
def user() -> None:
    """Add, change and list the dashboard's users.

    A viewer only looks, an operator also acts on jobs, and an admin also manages users and tokens.
    """


@user.command("add", cls=Audited)
@name_argument
@click.option("--role", type=ROLES, default="viewer", show_default=True, help="What the user may do.")
@payloads_option
@stdin_option
@click.option("--no-password", is_flag=True, help="Let the user in only by links or a proxy.")
@click.pass_obj
def user_add(
    app: App, name: str, role: str, payloads: bool | None, from_stdin: bool, no_password: bool
) -> None:
    """Add a user, and prompt for a password.

    NAME has up to 64 letters, digits and . _ @ + -
    """
    from packmule.dashboard.users import passwords
    from packmule.dashboard.users.user import User, checked_name
    from packmule.dashboard.viewer import Role

    if no_password and from_stdin:
        raise click.UsageError("give --no-password or --password-stdin, not both")
    checked_name(name)
    hashed = "" if no_password else passwords.hash_of(_new_password(name, from_stdin))
    sees = role == "admin" if payloads is None else payloads
    audited(lambda: {"role": role, "payloads": sees})
    _users(app).add(User(name, Role(role), sees, hashed))
    say(f"{name} is {Role(role).with_article}")


@user.command("list")
@json_option
@click.pass_obj
def user_list(app: App, json: bool) -> None:
    """List the users."""
    from packmule.terminal import show

    found = _users(app).all()
    rows = [
        {
            "name": each.name,
            "role": str(each.role),
            "payloads": each.payloads,
            "password": bool(each.password),
            "totp": bool(each.totp),
            "made_at": each.made_at,
            "changed_at": each.changed_at,
        }
        for each in found
    ]
    if json:
        show.as_json(rows)
        return
    cells = [
        [
            each.name,
            str(each.role),
            *("yes" if each_has else "no" for each_has in (each.payloads, each.password, each.totp)),
            show.ago(each.changed_at),
        ]
        for each in found
    ]
    empty = "no users: packmule user add NAME --role admin"
    show.table(("user", "role", "payloads", "password", "code", "changed"), cells, empty)


@user.command("passwd", cls=Audited)
@name_argument
@stdin_option
@click.pass_obj
def user_passwd(app: App, name: str, from_stdin: bool) -> None:
    """Change a user's password, and end the user's sessions."""
    from packmule.dashboard.users import passwords

    users = _users(app)
    users.get(name)
    users.change(name, password=passwords.hash_of(_new_password(name, from_stdin)))
    say(f"{name} has a new password; all sessions of {name} have ended")


@user.command("role", cls=Audited)
@name_argument
@click.argument("role", type=ROLES)
@payloads_option
@force_option
@click.pass_obj
def user_role(app: App, name: str, role: str, payloads: bool | None, force: bool) -> None:
    """Change a user's role, and end the user's sessions."""
    from packmule.dashboard.viewer import Role

    fields: dict[str, Any] = {"role": Role(role)}
    if payloads is not None:
        fields["payloads"] = payloads
        audited(lambda: {"payloads": payloads})
    changed = _users(app).change(name, force=force, **fields)
    sees = "and can see payloads" if changed.payloads else "and can't see payloads"
    say(f"{name} is {Role(role).with_article} {sees}; all sessions of {name} have ended")


@user.command("remove", cls=Audited)
@name_argument
@force_option
@click.pass_obj
def user_remove(app: App, name: str, force: bool) -> None:
    """Remove a user, and end the user's sessions."""
    _users(app).remove(name, force=force)
    say(f"{name} is removed")


@user.command("sessions")
@name_argument
@json_option
@click.pass_obj
def user_sessions(app: App, name: str, json: bool) -> None:
    """List where a user is logged in."""
    from packmule.dashboard.login.agents import in_words
    from packmule.terminal import show

    users = _users(app)
    users.get(name)
    found = users.sessions.list(name)
    rows = [
        {
            "session": each.ref,
            "begun_at": each.begun_at,
            "seen_at": each.seen_at,
            "ends_at": each.ends_at,
            "from": each.origin,
            "agent": each.agent,
        }
        for each in found
    ]
    if json:
        show.as_json(rows)
        return
    cells = [
        [each.ref[:12], show.ago(each.begun_at), show.ago(each.seen_at), each.origin, in_words(each.agent)]
        for each in found
    ]
    empty = f"{name} is not logged in"
    show.table(("session", "begun", "last seen", "from", "browser"), cells, empty, show.NARROW)


@user.command("logout", cls=Audited)
@name_argument
@click.pass_obj
def user_logout(app: App, name: str) -> None:
    """End all sessions of a user."""
    users = _users(app)
    users.get(name)
    ended = users.sessions.end_all(name)
    say(f"{ended} {'session' if ended == 1 else 'sessions'} of {name} ended")


@user.command("link", cls=Audited)
@name_argument
@click.option(
    "--for",
    "lifetime",
    type=Duration(),
    default="15m",
    show_default=True,
    help="Time until the link expires.",
)
@click.option("--url", help="The dashboard's address.  [default: from PACKMULE_HOST, PORT and PREFIX]")
@click.pass_obj
def user_link(app: App, name: str, lifetime: float, url: str | None) -> None:
    """Print a link that lets a user in once, without a password."""
    from packmule.dashboard.login.links import Links, address_of
    from packmule.dashboard.login.log_in import LogIn

    settings = app.settings
    base = url or address_of(settings.host, settings.port, settings.prefix)
    secret = Links(LogIn(app.client)).make(name, lifetime)
    say(f"{base.rstrip('/')}/login/link/{secret}")


@user.command("totp", cls=Audited)
@name_argument
@click.argument("switch", type=click.Choice(["on", "off"]))
@click.pass_obj
def user_totp(app: App, name: str, switch: str) -> None:
    """Turn authenticator codes at login on or off for a user.

    The user's sessions end. The code to scan is printed.
    """
    from packmule.dashboard.users import totp

    users = _users(app)
    users.get(name)
    if switch == "off":
        users.change(name, totp="", totp_step=0)
        say(f"{name} no longer needs a code; all sessions of {name} have ended")
        return
    secret = totp.new_secret()
    users.change(name, totp=secret, totp_step=0)
    say_lines(totp.qr_lines(totp.link(name, secret)))
    say(f"{name} can scan this with an authenticator app, or enter the key {secret}")


def _users(app: App) -> Users:
    from packmule.dashboard.users.store import Users

    return Users(app.client)


def _new_password(name: str, from_stdin: bool) -> str:
    from packmule.dashboard.users.user import checked_password

    if from_stdin:
        return checked_password(name, sys.stdin.readline(4096).rstrip("\r\n"))
    if not sys.stdin.isatty():
        raise click.UsageError("no terminal to prompt for a password: use --password-stdin")
    return checked_password(name, click.prompt("Password", hide_input=True, confirmation_prompt="Again"))
