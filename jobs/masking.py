"""Masking: secrets among the values of jobs, hidden where people look at them.

A value is a secret if the name of its argument or key says so, or the annotation of its job.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from packmule.jobs import registry
from packmule.jobs.job_type import JobType
from packmule.jobs.reader import JobInfo
from packmule.jobs.secrets import EACH, EACH_NAMED, RESULT, Parts, part

MASK = "(hidden)"
"""What stands for a secret."""

DEEPEST = 100
"""Lists and mappings in one another that are looked through; deeper ones are hidden whole."""

SECRET = re.compile(
    r"pass(?:word|wd|phrase|code)|(?:^|[_.\- ])p(?:wd|in)$|secret|token|authori[sz]ation|cookie|credential"
    r"|(?:api|access|private|signing|encryption|auth)[_.\- ]?key|^otp$|cvv|cvc",
    re.IGNORECASE,
)
"""The name of an argument or a key whose value is a secret."""

_STARS: Mapping[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: EACH,
    inspect.Parameter.VAR_KEYWORD: EACH_NAMED,
}

NONE: Mapping[str, Parts] = {}

_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^/\s:@]*):[^/\s@]+@", re.IGNORECASE)


def masked(value: Any, parts: Parts = False, depth: int = 0) -> Any:
    """`value`, JSON, with `MASK` for what keys such as `password` and `token` name, and in URLs.

    So is what an annotation says is secret of it: `parts`.

    >>> masked({"user": "ada", "api_key": "9f2c", "at": "redis://:s3cret@host/0"})
    {'user': 'ada', 'api_key': '(hidden)', 'at': 'redis://:(hidden)@host/0'}
    """
    if parts is True and value is not None:
        return MASK
    if isinstance(value, str):
        return _URL_PASSWORD.sub(rf"\1:{MASK}@", value) if "://" in value else value
    if depth > DEEPEST:
        return MASK
    if isinstance(value, Mapping):
        return {
            name: MASK if _hides(name, inner) else masked(inner, part(parts, str(name)), depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked(inner, part(parts, str(place)), depth + 1) for place, inner in enumerate(value)]
    return value


def masked_call(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], secrets: Mapping[str, Parts] = NONE
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call of the function `name`, masked; positional ones by their parameters' names.

    `secrets` are those that the record of a job names; those of a function that is registered here go along.
    """
    job = registry.get(name)
    parameters = list(job.signature.parameters) if job else []
    secrets = _together(job, secrets)
    names = [*parameters[: len(args)], *[""] * (len(args) - len(parameters))]
    positional = [
        MASK if _hides(each, value) else masked(value, part(secrets, str(place)))
        for place, (each, value) in enumerate(zip(names, args, strict=True))
    ]
    named = {
        each: MASK if _hides(each, value) else masked(value, part(secrets, each, EACH_NAMED))
        for each, value in kwargs.items()
    }
    return positional, named


def masked_job(info: JobInfo) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a job, masked."""
    return masked_call(info.name, info.args, info.kwargs, info.secrets)


def masked_result(info: JobInfo) -> Any:
    """The result of a job, masked."""
    return masked(info.result, part(_together(registry.get(info.name), info.secrets), RESULT, RESULT))


def masked_argument(job: JobType, name: str, value: Any) -> Any:
    """A value of the argument `name` of a job, masked; those of `*args` are a list."""
    stars = _STARS.get(job.signature.parameters[name].kind)
    inner = {EACH: job.secrets.get(stars, False)} if stars else job.secrets.get(name, False)
    return MASK if _hides(name, value) else masked(value, inner)


def _together(job: JobType | None, recorded: Mapping[str, Parts]) -> Mapping[str, Parts]:
    return {**job.secrets, **recorded} if job else recorded


def unmasked(changed: Any, original: Any) -> Any:
    """`changed`, made from `masked(original)`, with the secrets where they still are hidden.

    >>> unmasked({"user": "bob", "token": "(hidden)"}, {"user": "ada", "token": "9f2c"})
    {'user': 'bob', 'token': '9f2c'}
    """
    if changed == MASK or (isinstance(changed, str) and changed == masked(original)):
        return original
    if isinstance(changed, Mapping) and isinstance(original, Mapping):
        return {
            name: unmasked(value, original[name]) if name in original else value
            for name, value in changed.items()
        }
    if isinstance(changed, list) and isinstance(original, list | tuple) and len(changed) == len(original):
        return [unmasked(value, original[place]) for place, value in enumerate(changed)]
    return changed


def is_hidden(value: Any, depth: int = 0) -> bool:
    """Whether there is still a `MASK` in `value`."""
    if isinstance(value, str):
        return MASK in value
    if depth > DEEPEST or not isinstance(value, Mapping | list | tuple):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return any(is_hidden(each, depth + 1) for each in inner)


def _hides(name: object, value: Any) -> bool:
    """Whether a value is hidden: its name says so, unless it is nothing, yes or no, or a count of tokens."""
    if value is None or isinstance(value, bool) or not isinstance(name, str):
        return False
    is_count = isinstance(value, int | float) and "token" in name.lower()
    return SECRET.search(name) is not None and not is_count
