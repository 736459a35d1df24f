"""What the text of a setting may be: each parser returns a value, or raises `ValueError` with valid forms."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from packmule.units import DAY, duration, size

LAST_PORT = 65_535

MAIL_SCHEMES = r"(smtps?|ses|postmark|mailgun|sendgrid|resend|file|memory)://"

LONGEST_LABEL = 100

_URL_BEGINNING = re.compile(r"(\*\.)?[\w.-]+|https?://[\w.-]+(:\d+)?(/[!-~]*)?")


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def queue_names(text: str) -> tuple[str, ...]:
    """At least one name, each once."""
    queues = tuple(dict.fromkeys(names(text)))
    if not queues:
        raise ValueError("name at least one queue, such as high,default,low")
    return queues


def lock_urls(text: str) -> tuple[str, ...]:
    """An odd number of servers' URLs."""
    urls = names(text)
    if not all(re.match(r"(rediss?|unix)://.", url) for url in urls):
        raise ValueError(
            "give a redis://, rediss:// or unix:// URL for each server, with %2C for a comma in it"
        )
    if len(set(urls)) < len(urls):
        raise ValueError("name each server once: a server has one vote")
    if len(urls) % 2 == 0:
        raise ValueError("use 1, 3 or 5 servers: an even number survives no more failures")
    return urls


def _label(example: str) -> Callable[[str], str]:
    """What names something for people: up to 100 visible characters, such as the `example`."""

    def checked(text: str) -> str:
        if len(text) > LONGEST_LABEL or not text.isprintable():
            raise ValueError(f"use up to {LONGEST_LABEL} visible characters, such as {example}")
        return text

    return checked


release = _label("a commit's id")
"""What names the code that runs."""

machine = _label("a node's name")
"""What names a worker's machine."""


def keep(text: str) -> int:
    """A span of a day to ten years."""
    seconds = duration(text)
    if not DAY <= seconds <= 3650 * DAY:
        raise ValueError("give a span from 1d to 3650d")
    return int(seconds)


def mail_urls(text: str) -> tuple[str, ...]:
    """One or several URLs with spaces between them."""
    urls = tuple(text.split())
    if not all(re.match(MAIL_SCHEMES, url) for url in urls):
        raise ValueError(
            "write URLs such as smtp://user:password@host, with spaces only between them; they begin with "
            "smtp, smtps, ses, postmark, mailgun, sendgrid, resend, file or memory"
        )
    return urls


def url_beginnings(text: str) -> tuple[str, ...]:
    """Hosts, `*.` and a host, and beginnings of URLs, separated by commas."""
    for entry in names(text):
        if not _URL_BEGINNING.fullmatch(entry):
            raise ValueError(
                f"{entry!r} is not a host: write example.org, *.example.org or https://example.org/data/"
            )
    return names(text)


def clamd(text: str) -> str:
    """The URL of a virus scanner: a host with or without its port, or a socket's path."""
    if not re.fullmatch(r"tcp://([\w.-]+|\[[0-9a-fA-F:.]+\])(:[1-9]\d{0,4})?|unix:///.+", text, re.ASCII):
        raise ValueError("write tcp://host:3310 or unix:///run/clamav/clamd.ctl")
    if text.startswith("tcp:"):
        _ = urlsplit(text).port  # which may be too high
    return text


def truth(text: str) -> bool:
    """Yes or no."""
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("use 1 or 0")


def count(text: str) -> int:
    """A whole number above zero."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ValueError("use a whole number above zero")
    return int(text)


def address(text: str) -> str:
    """An address to listen on, such as `127.0.0.1:9465` or `[::1]:9465`."""
    host, _, number = text.rpartition(":")
    if not host or not (number.isascii() and number.isdigit()) or int(number) > LAST_PORT:
        raise ValueError("use an address such as 127.0.0.1:9465")
    return text


def port(text: str) -> int:
    """A port of TCP."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= LAST_PORT:
        raise ValueError(f"use a port from 1 to {LAST_PORT}")
    return int(text)


def host_names(text: str) -> tuple[str, ...]:
    """Names and addresses by which browsers know a site, without a port."""
    hosts = tuple(name.lower().strip("[]") for name in names(text))
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:.]*", host):
            raise ValueError("use names or addresses without a port, such as jobs.example.com,10.0.0.5")
    return hosts


def networks(text: str) -> tuple[str, ...]:
    """Addresses and networks, or `unix` for whoever connects by a unix socket."""
    try:
        return tuple(name if name == "unix" else str(ipaddress.ip_network(name)) for name in names(text))
    except ValueError as error:
        raise ValueError(f"{error}: use addresses or networks, such as 10.0.0.5,172.16.0.0/12") from None


def prefix(text: str) -> str:
    """The path below which a proxy serves a site."""
    if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?", text):
        raise ValueError("use a path such as /packmule")
    return text.rstrip("/")


def origins(text: str) -> tuple[str, ...]:
    """Origins of web pages: a scheme and a host, and a port unless it is the usual one."""
    found = names(text.lower())
    for origin in found:
        if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", origin):
            raise ValueError("use origins such as https://shop.example.com,http://localhost:3000")
    return found


def environment(text: str) -> str:
    """One of the two environments."""
    if text not in {"development", "production"}:
        raise ValueError("use development or production")
    return text


def tracing(text: str) -> str:
    """Where traces go."""
    if text not in {"none", "otlp", "console"}:
        raise ValueError("use none, otlp or console")
    return text


def high_water(text: str) -> str:
    """Bytes as digits, or a share such as `80%`."""
    if re.fullmatch(r"(100|[1-9][0-9]?)%", text):
        return text
    try:
        return str(size(text))
    except ValueError:
        raise ValueError("use a size such as 6G, or a share of the server's maxmemory such as 80%") from None


def log_format(text: str) -> str:
    """How the log looks."""
    if text not in {"text", "untimed", "json"}:
        raise ValueError("use text, untimed or json")
    return text


def log_level(text: str) -> str:
    """What a process logs at least."""
    if text.lower() not in {"debug", "info", "warning", "error"}:
        raise ValueError("use debug, info, warning or error")
    return text.lower()


def job_log_level(text: str) -> str:
    """What jobs' own logs keep at least."""
    if text.lower() not in {"debug", "info", "warning", "error", "critical", "off"}:
        raise ValueError("use debug, info, warning, error, critical or off")
    return text.lower()


def header_name(text: str) -> str:
    """The name of an HTTP header."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,99}", text):
        raise ValueError("use the name of a header, such as X-Forwarded-User")
    return text
