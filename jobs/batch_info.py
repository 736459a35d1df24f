"""A batch or flow in words and numbers: what `--json` prints and the HTTP API answers."""

from __future__ import annotations

import msgspec

from packmule.jobs.batch_state import State
from packmule.jobs.cron import shown
from packmule.jobs.flow_graph import Node


class BatchInfo(msgspec.Struct, frozen=True, rename={"parent": "in"}):
    """A batch at one moment: its `state` is growing, running, paused, canceled or ended.

    `pending` of its `total` jobs have not ended. Times are texts; `in` is the batch that it is a part of.
    """

    batch: str
    name: str
    state: str
    total: int
    done: int
    failed: int
    canceled: int
    pending: int
    created: str
    ended: str | None
    parent: str | None


class FlowInfo(BatchInfo, frozen=True, rename={"parent": "in"}):
    """A flow: a batch with its `nodes`, from the first layer to the last."""

    nodes: list[Node]


def batch_info(state: State) -> BatchInfo:
    """A batch's state in words.

    >>> batch_info(batch.state()).state  # doctest: +SKIP
    'running'
    """
    return BatchInfo(
        state.id,
        state.name,
        word(state),
        *state.counts,
        state.counts.pending,
        shown(int(state.created)),
        shown(int(state.ended)) if state.ended is not None else None,
        state.parent,
    )


def flow_info(state: State, nodes: list[Node]) -> FlowInfo:
    """A flow's state and nodes likewise."""
    return FlowInfo(**msgspec.structs.asdict(batch_info(state)), nodes=nodes)


def word(state: State) -> str:
    """What a batch does, in one word."""
    if state.ended is not None:
        return "ended"
    if state.is_canceled:
        return "canceled"
    if state.is_paused:
        return "paused"
    return "running" if state.is_sealed else "growing"
