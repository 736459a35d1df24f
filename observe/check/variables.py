"""Variables: where the values of settings come from, and which variables look like settings and are none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from packmule import setting_values
from packmule.config import PREFIX, VARIABLES, Settings, environment, given, source_of
from packmule.units import duration, given_size, given_span, size

DEFAULT = "default"

_WORDS: Mapping[Callable[[str], Any], Callable[[Any], str]] = {
    duration: given_span,
    setting_values.keep: given_span,
    size: given_size,
    setting_values.count: "{:,}".format,
    setting_values.truth: lambda value: "yes" if value else "no",
}
"""How a person reads the values that a parser makes."""

_SECRET = f"{PREFIX}SECRET_"

_OF_KUBERNETES = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)$")
"""Variables by which Kubernetes names the addresses of services that are called `packmule-...`."""


def origins(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting's value comes from: the variable that gives it, or `default`.

    >>> origins({"REDIS_URL": "redis://jobs"})["redis_url"]
    'REDIS_URL'
    """
    env = environment(environ)
    return {name: given(name, env) or DEFAULT for name in VARIABLES}


def places() -> dict[str, str]:
    """The same for a person: `environment`, the path of a `.env`, or `default`; others' variables by name.

    >>> places()["redis_url"]  # doctest: +SKIP
    'REDIS_URL of .env'
    """
    found = {}
    for name, origin in origins().items():
        is_ours = origin == VARIABLES[name][0]
        place = source_of(origin)
        found[name] = origin if origin == DEFAULT else place if is_ours else f"{origin} of {place}"
    return found


def shown(settings: Settings) -> dict[str, str]:
    """Each setting as text for a person, without passwords: spans, sizes and counts in words.

    >>> shown(Settings())["images_keep"], shown(Settings())["max_file_bytes"]
    ('30 d', '2 GiB')
    """
    found = settings.masked()
    for name, (_, parse) in VARIABLES.items():
        value = getattr(settings, name)
        if isinstance(value, int | float) and (say := _WORDS.get(parse)):
            found[name] = say(value)
    return found


def secrets_given(environ: Mapping[str, str] | None = None) -> list[str]:
    """The names of the variables that give secrets, never what is in them.

    >>> secrets_given({"PACKMULE_SECRET_HOOKS": "s3cret", "PACKMULE_ENV": "production"})
    ['PACKMULE_SECRET_HOOKS']
    """
    return sorted(name for name, value in environment(environ).items() if name.startswith(_SECRET) and value)


def unknown(environ: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Variables that look like those of settings and are none, each with the one that it resembles, if any.

    >>> unknown({"PACKMULE_MODULS": "shop", "PACKMULE_SERVICE_HOST": "10.0.0.1"})
    {'PACKMULE_MODULS': 'PACKMULE_MODULES'}
    """
    known = {variable.removeprefix(PREFIX): variable for variable, _ in VARIABLES.values()}
    found: dict[str, str | None] = {}
    for name, value in sorted(environment(environ).items()):
        is_address = _OF_KUBERNETES.search(name) or (name.endswith("_PORT") and "://" in value)
        word = name.removeprefix(PREFIX)
        if word == name or word in known or name.startswith(_SECRET) or is_address:
            continue
        found[name] = known[near[0]] if (near := get_close_matches(word, known, 1, 0.8)) else None
    return found
