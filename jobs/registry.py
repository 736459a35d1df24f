"""The functions that workers may perform, by their dotted names."""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from packmule import extras, project
from packmule.errors import NotFound, meant
from packmule.jobs import wire
from packmule.jobs.job_type import JobType, job_type
from packmule.jobs.options import Options

READY = (
    "packmule.jobs.email.email",
    "packmule.jobs.email.bulk.chunk.email_chunk",
    "packmule.jobs.email.suppression.collecting.email_intake",
    "packmule.jobs.image.image",
    "packmule.jobs.image.serving.prune.image_prune",
    "packmule.jobs.files.file",
    "packmule.jobs.files.fetching.fetch",
    "packmule.jobs.files.profiling.profile",
    "packmule.jobs.files.scanning.scan",
    "packmule.jobs.files.texts.text",
    "packmule.jobs.retention.scheduled.files_prune",
    "packmule.jobs.files.unpacking.unpack",
    "packmule.jobs.files.unpacking.each.each_member",
    "packmule.jobs.pipelines.publishing.publish",
    "packmule.jobs.pipelines.publishing.settle",
)
"""The ready-made jobs."""

INTERNAL = (
    "packmule.jobs.email.bulk.chunk.email_chunk",
    "packmule.jobs.email.suppression.collecting.email_intake",
    "packmule.jobs.image.serving.prune.image_prune",
    "packmule.jobs.retention.scheduled.files_prune",
    "packmule.jobs.files.unpacking.each.each_member",
    "packmule.jobs.pipelines.publishing.publish",
    "packmule.jobs.pipelines.publishing.settle",
)
"""Those of them that only Packmule enqueues."""

_registered: dict[str, JobType] = {}
_deferred: set[str] = set()

_meant = lru_cache(maxsize=100)(meant)
"""A search of milliseconds, so that many jobs of one wrong name take it once."""


class Invoked(NamedTuple):
    """What a payload asks for: a callable's type, and the arguments as they came."""

    type: JobType
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class NotRegistered(NotFound, LookupError):
    """No loaded module registered a function of that name with `@job`, and no setting allows it."""


def add(job: JobType) -> None:
    """Let workers perform `job`; one registered under its name before is replaced."""
    _registered[job.name] = job


def defer(names: Iterable[str]) -> None:
    """Let workers perform the jobs `names`, whose modules are imported when they are first looked for.

    So a worker that never performs them is smaller, and so is each process that it forks.
    """
    _deferred.update(names)


def find(name: str) -> JobType:
    """The registered job called `name`. Raises `NotRegistered`, which names the one that may be meant."""
    if (found := _found(name)) is not None:
        return found
    way_out = "decorate it with @job and name its module in PACKMULE_MODULES"
    if near := _meant(name, tuple(names())):
        way_out = f"did you mean {near}? If not, {way_out}"
    raise NotRegistered(f"{name} is not a registered job: {way_out}")


def get(name: str) -> JobType | None:
    """The registered job called `name`, if there is one; cheaper than an error of `find`."""
    try:
        return _found(name)
    except NotRegistered:  # its module can't be imported
        return None


def _found(name: str) -> JobType | None:
    if name not in _registered and name in _deferred:
        _imported(name.rpartition(".")[0])
    return _registered.get(name)


def ready(name: str) -> str:
    """The dotted name of the ready-made job that is called `name`; any other name as it is."""
    return next((each for each in READY if each.rpartition(".")[2] == name), name)


def call(data: bytes) -> Invoked:
    """The call in the payload `data`. Raises `InvalidPayload` or `NotRegistered`."""
    name, _, args, kwargs = wire.decode_call(data)
    return Invoked(find(name), args, kwargs)


def types() -> list[JobType]:
    """All registered jobs whose modules were imported, in the order of their names."""
    return [_registered[name] for name in sorted(_registered)]


def names() -> list[str]:
    """The dotted names of all registered jobs, sorted."""
    return sorted(_registered.keys() | _deferred)


def digest() -> str:
    """A short text that is the same in processes that know the same jobs."""
    return hashlib.blake2b("\n".join(names()).encode(), digest_size=6).hexdigest()


def load(modules: Iterable[str], allow: Iterable[str] = ()) -> None:
    """Import `modules`, whose `@job` functions register themselves, and register the dotted names in `allow`.

    The working directory is importable, after everything installed. Raises `NotRegistered` with the
    module's name if one can't be imported.
    """
    project.let_import()
    for module in modules:
        _imported(module)
    for name in allow:
        if name not in _registered and name not in _deferred:
            module, _, attribute = name.rpartition(".")
            function = getattr(_imported(module), attribute, None) if module else None
            if not callable(function):
                raise NotRegistered(f"PACKMULE_ALLOW names {name}, which is not a function of a module")
            # Jobs ask for it by this name, which need not be that of the module that defines it. Its
            # annotations are not checked: it may take what JSON can't carry, as RQ's callbacks do.
            _registered[name] = job_type(name, function, Options(), typed=False)


def _imported(module: str) -> Any:
    if module.endswith(".py"):
        named = module.removesuffix(".py").strip("./").replace("/", ".")
        raise NotRegistered(f"can't import {module}: name the module, not its file: {named}")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        why = extras.how_to_install(error) or f"{error} (looked in the working directory too)"
        raise NotRegistered(f"can't import {module}: {why}") from error
    except Exception as error:  # whatever the user's own code raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = "" if isinstance(error, SyntaxError) else f" ({where.filename}, line {where.lineno})"
        raise NotRegistered(f"can't import {module}: {type(error).__name__}: {error}{line}") from error
    if _is_hidden(module.partition(".")[0]):
        raise NotRegistered(f"can't import {module}: Python has a module of this name: rename yours")
    return found


def _is_hidden(name: str) -> bool:
    """Whether Python's own module `name` was imported although the working directory has one."""
    if name not in sys.stdlib_module_names:
        return False
    ours = [path.resolve() for path in (Path(f"{name}.py"), Path(name, "__init__.py")) if path.exists()]
    return bool(ours) and Path(getattr(sys.modules[name], "__file__", None) or "").resolve() not in ours
