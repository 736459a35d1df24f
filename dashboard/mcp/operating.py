"""The tools that change something; each is offered with `--operate` alone, and audited."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from packmule.config import secret
from packmule.coordination.locks.state import LockNotReleased, lock_state, release
from packmule.dashboard.mcp.holding import NoSuchWebhook, WebhookName
from packmule.dashboard.mcp.reading import Fingerprint, JobId, Named
from packmule.dashboard.mcp.tools import Desk, tool
from packmule.jobs import cluster, control, queues, signaling, slots
from packmule.jobs import schedule_store as store
from packmule.jobs.batch import Batch
from packmule.jobs.batch_info import batch_info
from packmule.jobs.client import known_queue
from packmule.jobs.outgoing.door import Allowed
from packmule.observe import errors
from packmule.observe.webhooks import sender
from packmule.observe.webhooks.endpoints import read_endpoints

MOST_SENT, SENDING = 100, 20.0
"""Dead letters that one call sends again at most, and seconds after which it begins no more."""


class Signal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signal for a job."""

    id: str
    name: str
    data: Annotated[Any, Meta(description="Any JSON.")] = None


class LockHeld(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lock, and the fence of the holder that is meant."""

    name: str
    fence: Annotated[int, Meta(description="That of list_locks; another's lock is not released.")]


class SlotHeld(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A slot of a limit, and the job that holds it, as list_limits shows them."""

    key: str
    job: str


@tool(JobId, "job cancel", is_destructive=True)
def cancel_job(desk: Desk, asked: JobId) -> Any:
    """Cancel a job, or stop it if it runs."""
    return {"id": asked.id, "status": control.cancel(desk.client, asked.id)}


@tool(JobId, "job retry")
def retry_job(desk: Desk, asked: JobId) -> Any:
    """Run a failed, stopped or canceled job again."""
    control.retry(desk.client, asked.id)
    return {"id": asked.id, "status": "queued"}


@tool(JobId, "job run")
def run_job(desk: Desk, asked: JobId) -> Any:
    """Let a scheduled job run now."""
    control.run_now(desk.client, asked.id)
    return {"id": asked.id, "status": "queued"}


@tool(Signal, "job signal")
def signal_job(desk: Desk, asked: Signal) -> Any:
    """Send a signal to a job that waits for it, or will."""
    return {"id": asked.id, "outcome": signaling.signal(desk.client, asked.id, asked.name, asked.data)}


@tool(Fingerprint, "errors retry")
def retry_error(desk: Desk, asked: Fingerprint) -> Any:
    """Run the jobs again that failed of an error, the last 1,000 at most."""
    done = errors.retry(desk.client, asked.fingerprint)
    return {"enqueued again": len(done.jobs), "refused": len(done.refused)}


@tool(Fingerprint, "errors resolve")
def resolve_error(desk: Desk, asked: Fingerprint) -> Any:
    """Mark an error as resolved: if it comes again, it is open again."""
    return {"before": errors.mark(desk.client, asked.fingerprint, "resolved"), "state": "resolved"}


@tool(Named, "queue pause", is_destructive=True)
def pause_queue(desk: Desk, asked: Named) -> Any:
    """Keep workers from taking jobs of a queue."""
    return {"changed": queues.pause(desk.client, _known(desk, asked.name))}


@tool(Named, "queue resume")
def resume_queue(desk: Desk, asked: Named) -> Any:
    """Let workers take jobs of a queue again."""
    return {"changed": queues.resume(desk.client, _known(desk, asked.name))}


@tool(Named, "schedule pause", is_destructive=True)
def pause_schedule(desk: Desk, asked: Named) -> Any:
    """Pause a schedule, whatever later deploys say."""
    return {"changed": bool(store.pause(desk.client, asked.name))}


@tool(Named, "schedule resume")
def resume_schedule(desk: Desk, asked: Named) -> Any:
    """Resume a schedule from now on."""
    return {"changed": bool(store.resume(desk.client, asked.name))}


@tool(JobId, "batch cancel", is_destructive=True)
def cancel_batch(desk: Desk, asked: JobId) -> Any:
    """Cancel the waiting jobs of a batch or flow, and stop its running ones."""
    batch = Batch(desk.client, asked.id)
    batch.cancel()
    return batch_info(batch.state())


@tool(Named, "worker quiet", is_destructive=True)
def quiet_worker(desk: Desk, asked: Named) -> Any:
    """Let a worker take no more jobs until it is resumed or ends."""
    return {"changed": cluster.quiet(desk.client, asked.name)}


@tool(Named, "worker resume")
def resume_worker(desk: Desk, asked: Named) -> Any:
    """Let a quiet worker take jobs again."""
    return {"changed": cluster.resume(desk.client, asked.name)}


@tool(LockHeld, "locks release", is_destructive=True)
def release_lock(desk: Desk, asked: LockHeld) -> Any:
    """Release a lock whose holder is gone: another may then begin beside a holder that lives."""
    nodes = desk.lock_nodes or (desk.client,)
    found = [each for each in lock_state(nodes, asked.name).locks if each.fence == asked.fence]
    if not found:
        raise LockNotReleased(f"{asked.name!r:.200} is not held with fence {asked.fence}: see list_locks")
    held = max(found, key=lambda each: each.nodes)
    return {"released on": release(nodes, held), "of nodes": held.of}


@tool(SlotHeld, "limits release", is_destructive=True)
def release_slot(desk: Desk, asked: SlotHeld) -> Any:
    """Take the slot of a limit from a job whose worker is gone; one that still runs keeps it."""
    return {"held by worker": slots.release_slot(desk.client, asked.key, asked.job) or None}


@tool(WebhookName, "webhooks dead")
def resend_webhook(desk: Desk, asked: WebhookName) -> Any:
    """Send a webhook's dead letters again, up to 100 within 20 s, until one is not accepted."""
    allowed = Allowed(desk.webhook_allow)
    known = read_endpoints(desk.webhooks, allowed, secret) if desk.webhooks else []
    endpoint = next((each for each in known if each.name == asked.name), None)
    if endpoint is None:
        raise NoSuchWebhook(f"the file in PACKMULE_WEBHOOKS has no webhook {asked.name!r:.100}")
    sent, left = sender.resend(desk.client, endpoint, allowed, MOST_SENT, SENDING)
    return {"sent": sent, "left": left}


def _known(desk: Desk, name: str) -> str:
    return known_queue(name, queues.names(desk.client, desk.queues))


TOOLS = (
    cancel_job, retry_job, run_job, signal_job, retry_error, resolve_error, pause_queue, resume_queue,
    pause_schedule, resume_schedule, cancel_batch, quiet_worker, resume_worker,
    release_lock, release_slot, resend_webhook,
)  # fmt: skip
