"""The ends of a pipeline's flow: publish what its steps made, or remove what a canceled one has staged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import msgspec

from packmule.errors import UsageError
from packmule.jobs import batch_state, current
from packmule.jobs.batch import Batch
from packmule.jobs.flow import MOST_ADDED, Flow
from packmule.jobs.job import Prepared, job
from packmule.jobs.pipelines.ends import Ends
from packmule.jobs.pipelines.staging import MANIFEST, give_up, place_of, staging_of
from packmule.jobs.storage import MissingFile, OutsideStorage, Storage
from packmule.jobs.storage.store import sha256_of

LONGEST_DESCRIPTION = 200

MOST_NAMED = 1000
"""Outputs that the result names; the manifest has all."""


class NotInAPipeline(UsageError, RuntimeError):
    """A job of pipelines was enqueued alone."""


class MissingOutput(UsageError, LookupError):
    """What a step says that it wrote isn't there, or isn't in the step's folder."""


@job(
    queue="low",
    timeout=3600,
    retries=5,
    give_up_on=(NotInAPipeline, MissingOutput, MissingFile, OutsideStorage),
)
def publish(
    source: str, pipeline: str, steps: dict[str, str], may_fail: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Publish what the `steps` of this flow have staged, all of it at once, with a manifest.

    `steps` has their names in order, with those of their jobs; those in `may_fail` may have failed. It is the
    last node of a pipeline's flow, behind those of its steps. If these have added jobs to the flow, it puts
    another node like itself behind those that have not ended, and returns how many it `awaits`. What is
    published stays as it is::

        {"source": "uploads/5f0c/a.csv", "path": "results/intake/a.csv/7f0c/manifest.json",
         "paths": ["results/intake/a.csv/7f0c/table/a.parquet"], "count": 1, "bytes": 16310}

    Raises `MissingOutput` if something that a step says that it wrote is gone, or elsewhere, `MissingFile` if
    the source is gone.
    """
    flow = Flow.current()
    if flow is None:
        raise NotInAPipeline("publish is the last step of pipelines, and can't be enqueued alone")
    storage = current.resource(Storage)
    staging, place = staging_of(flow.id), place_of(pipeline, source, flow.id)
    if not storage.exists(f"{place}/{MANIFEST}"):  # otherwise an earlier run of this job came that far
        ends = Ends(flow, steps, may_fail)
        if awaited := ends.awaited():
            some = dict(awaited[:MOST_ADDED])
            flow.add(the_end(source, pipeline, steps, may_fail), after=some)
            return {"source": source, "awaits": len(some)}
        outputs = _gathered(storage, staging, ends)
        manifest = {
            "version": 1,
            "pipeline": pipeline,
            "flow": flow.id,
            "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": _facts(storage, source),
            "steps": [_moved(each, staging, place) for each in ends.said()],
            "outputs": outputs,
        }
        storage.write_bytes(f"{staging}/{MANIFEST}", msgspec.json.format(msgspec.json.encode(manifest)))
        # Whoever ends the flow, or publishes it, from now on, removes that, so that nothing moves here. If
        # this process was frozen before, that may have happened already.
        if not storage.exists(f"{place}/{MANIFEST}"):
            _check_whole(storage, flow, staging, outputs)
            storage.move_folder(staging, place, MANIFEST)
    storage.delete_folder(staging)
    return _result(storage, source, place)


def the_end(source: str, pipeline: str, steps: dict[str, str], may_fail: Sequence[str]) -> Prepared:
    """The call of `publish`, with the description of its job."""
    shown = publish.options(description=f"publish: {PurePosixPath(source).name}"[:LONGEST_DESCRIPTION])
    return shown.call(source, pipeline, steps, tuple(may_fail))


@job(queue="low", timeout=3600, retries=5)
def settle() -> None:
    """Remove what the steps of this flow have staged, if it was canceled; a failed flow may be retried."""
    flow = Batch.current()
    if flow is not None and flow.state().is_canceled:
        give_up(current.resource(Storage), flow.id)


def _gathered(storage: Storage, staging: str, ends: Ends) -> list[dict[str, Any]]:
    """The outputs of the steps that are done; what isn't one of these is deleted. Raises `MissingOutput`."""
    outputs: dict[str, list[dict[str, Any]]] = {name: [] for name in ends.done()}
    spoilt, there, unwanted = set(ends.spoilt(staging)), set(), set()
    for each in sorted(storage.files(f"{staging}/")):
        within = [*_within(each.path, staging)]
        path = each.path.removeprefix(f"{staging}/")
        step = path.partition("/")[0]
        if bad := spoilt.intersection(within) or (set() if step in outputs else {f"{staging}/{step}"}):
            unwanted |= bad
        else:
            size = storage.size(each.path) if each.bytes is None else each.bytes
            outputs[step].append({"step": step, "path": path, "bytes": size})
            there.update(within)
    for step, value in ends.results_of_done():
        for path in _staged(value, staging):
            if path.rstrip("/") not in there:
                raise _missing(storage, staging, step, path)
    for path in unwanted:
        storage.delete(path)  # it may be a file itself
        storage.delete_folder(path)
    return [each for made in outputs.values() for each in made]


def _check_whole(storage: Storage, flow: Flow, staging: str, outputs: Sequence[Mapping[str, Any]]) -> None:
    """Raise `MissingOutput`, and leave nothing, if the flow was canceled or any of its outputs is gone.

    Of a flow that Redis has lost, only the outputs are known.
    """
    (state,) = batch_state.read_each(flow.redis, [flow.id])
    is_over = state.is_canceled if state is not None else not outputs
    there = set(storage.names(f"{staging}/"))
    if is_over or any(f"{staging}/{each['path']}" not in there for each in outputs):
        give_up(storage, flow.id)
        raise MissingOutput(f"what flow {flow.id} has staged was removed before it was published")


def _within(path: str, staging: str) -> Iterator[str]:
    """A path below `staging`, and all folders there that it is in."""
    while path != staging:
        yield path
        path = path.rpartition("/")[0]


def _missing(storage: Storage, staging: str, step: str, path: str) -> MissingOutput:
    if storage.exists(path) or storage.names(f"{path}/"):
        return MissingOutput(
            f"{path}, which step {step} names, is outside of its folder {staging}/{step}, so it isn't "
            "published: have its job write to its argument out"
        )
    return MissingOutput(f"{path}, which step {step} names, is gone: run the pipeline again")


def _staged(value: Any, staging: str) -> Iterator[str]:
    """The paths in the folder `staging` that a result names."""
    if isinstance(value, str) and value.startswith(f"{staging}/"):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _staged(each, staging)


def _moved(value: Any, staging: str, place: str) -> Any:
    """A result with the paths that its files have once they are published."""
    if isinstance(value, str) and value.startswith(f"{staging}/"):
        return place + value.removeprefix(staging)
    if isinstance(value, Mapping):
        return {name: _moved(each, staging, place) for name, each in value.items()}
    return [_moved(each, staging, place) for each in value] if isinstance(value, list) else value


def _facts(storage: Storage, source: str) -> dict[str, Any]:
    """What was read; of what a URL names, which no storage holds, its address."""
    if "://" in source:
        return {"path": source}
    with storage.read(source) as file:
        return {"path": source, "bytes": file.stat().st_size, "sha256": sha256_of(file)}


def _result(storage: Storage, source: str, place: str) -> dict[str, Any]:
    path = f"{place}/{MANIFEST}"
    outputs = msgspec.json.decode(storage.read_bytes(path))["outputs"]
    return {
        "source": source,
        "path": path,
        "paths": [f"{place}/{each['path']}" for each in outputs[:MOST_NAMED]],
        "count": len(outputs),
        "bytes": sum(each["bytes"] for each in outputs),
    }
