"""The steps of pipelines: each is a job that reads the uploaded file or what an earlier step wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from packmule.jobs import registry
from packmule.jobs.job import JobFunction
from packmule.jobs.job_type import JobType
from packmule.jobs.options import OPTION_NAMES, Options, refuse_unknown
from packmule.jobs.output_path import output_path

SOURCE = "source"
"""What a step reads that reads the file itself, and the argument of its job that takes it."""

UNPACK = "packmule.jobs.files.unpacking.unpack"
EACH_MEMBER = "packmule.jobs.files.unpacking.each.each_member"

OnFailure = Literal["stop", "continue"]


@dataclass(frozen=True, slots=True)
class Step:
    """One job of a pipeline; see `step`."""

    job: JobType
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reads: str = SOURCE
    after: Sequence[str] | None = None
    on_failure: OnFailure = "stop"
    options: Options = field(default_factory=Options)

    @property
    def in_front(self) -> str:
        """The name of the step whose output it reads, "" if it reads the source."""
        return "" if self.reads == SOURCE else self.reads.partition("/")[0]

    @property
    def adds_jobs(self) -> bool:
        """Whether it makes a job of each file of an archive, for which only the end of the pipeline waits."""
        return self.job.name == EACH_MEMBER

    def members_job(self) -> JobType:
        """The job that it makes of each file of an archive. Raises `NotRegistered`."""
        return registry.find(registry.ready(self.arguments["each"]))

    def output(self, staging: str, source: str) -> str | None:
        """Where it writes: a file, if that has a name, or else a folder. None if it writes nothing."""
        return output_path(self.job, self.arguments, f"{staging}/{self.name}", source)

    def known_output(self, staging: str, source: str) -> str | None:
        """The path that it returns, if that is known before it has run."""
        is_known = self.job.name == UNPACK or ("out" not in self.arguments and "to" in self.arguments)
        return self.output(staging, source) if is_known else None


def step(
    job: JobFunction[..., Any] | JobType,
    /,
    *,
    name: str | None = None,
    reads: str = SOURCE,
    after: Sequence[str] | None = None,
    on_failure: OnFailure = "stop",
    options: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Step:
    """A step of a pipeline: a call of `job` with these `arguments`, to which its `source` and `out` come.

    It `reads` the source, the output of an earlier step, or one file of it, such as `unpack/orders.csv`. It
    comes `after` the step above it, unless that is said otherwise, and after the one that it reads. If it
    fails, the pipeline stops, or with `on_failure="continue"` the others go on without its output. `options`
    are those of `@job`, such as `{"timeout": 600}`. `out` names its output below the step's own folder.

    >>> from packmule.jobs.files import file
    >>> step(file, name="table", to="parquet").name
    'table'
    """
    found = job if isinstance(job, JobType) else job.job
    name = found.name.rpartition(".")[2] if name is None else name
    refuse_unknown(options or {}, OPTION_NAMES)
    return Step(found, name, arguments, reads, after, on_failure, Options(**(options or {})))
