"""Unique jobs: which calls are equal, and for how long one of them holds their place."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from packmule.coordination.key_template import InvalidKeyTemplate, KeyTemplate, template
from packmule.jobs import wire
from packmule.jobs.job_type import InvalidCall, InvalidJob, JobType
from packmule.jobs.options import InvalidOption, Options
from packmule.jobs.spans import in_seconds

LONGEST_KEY = 250
"""A key of more characters is replaced by its SHA-256."""

Uniqueness = tuple[str, str, float, float]
"""A unique job's key, rule, the rule's seconds, and its longest wait or 0, as `enqueue.lua` takes them."""


def check(job: JobType) -> None:
    """Raise `InvalidJob` if `job` is unique by a key that its arguments can't fill in."""
    if isinstance(job.options.unique, str):
        try:
            _template(job.options.unique, job.function)
        except InvalidKeyTemplate as error:
            raise InvalidJob(f"{job.name} can't be a job: unique={error}") from None


def uniqueness(job: JobType, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options) -> Uniqueness:
    """How one valid call is unique. Raises `InvalidOption`, or `InvalidCall` if it has no key."""
    key = _key(job, args, kwargs, options.unique or True)
    if options.debounce is not None:
        return key, "debounce", in_seconds(options.debounce), in_seconds(options.debounce_limit or 0)
    if options.throttle is not None:
        return key, "throttle", in_seconds(options.throttle), 0.0
    if options.unique_ttl is not None:
        return key, "ttl", in_seconds(options.unique_ttl), 0.0
    return key, "life", 0.0, 0.0


def skipping(lock: str) -> Uniqueness:
    """How a singleton with the policy `skip` is unique: by its lock, until it has ended."""
    return f"singleton {lock}", "life", 0.0, 0.0


def _key(job: JobType, args: Sequence[Any], kwargs: Mapping[str, Any], unique: bool | str) -> str:
    """A call's key: the same for equal calls, whether arguments are positional, named or defaults."""
    given = job.arguments_of(args, kwargs)
    try:
        said = [unique, _template(unique, job.function).fill(given) if isinstance(unique, str) else given]
        plain = msgspec.to_builtins(said, str_keys=True, order="deterministic", enc_hook=wire.plain_argument)
        values = msgspec.json.encode(plain, order="deterministic").decode()
    except InvalidKeyTemplate as error:
        raise InvalidOption(f"unique={unique!r}: {error}") from None
    except (TypeError, ValueError) as error:
        raise InvalidCall(f"{job.name}: its arguments can't be compared: {error}") from None
    if len(job.name) + len(values) > LONGEST_KEY:
        values = hashlib.sha256(values.encode()).hexdigest()
    return f"{job.name}:{values}"


@lru_cache(maxsize=1024)
def _template(text: str, function: Callable[..., Any]) -> KeyTemplate:
    """The template of a key. Raises `InvalidKeyTemplate`, also for the bare name of an argument."""
    signature = inspect.signature(function)
    found = template(text, signature)
    if not found.fields and text.strip() in signature.parameters:
        raise InvalidKeyTemplate(f"{text!r} is the same key for all calls: put the argument in braces")
    return found
