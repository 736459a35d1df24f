"""The names of RQ's keys and ours, of channels and job ids."""

from __future__ import annotations

import os
import re
import socket
from urllib.parse import quote

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")

SHORTEST_BEGINNING = 4
"""Characters of the beginning of an id by which people may call a job, a batch or a flow."""


def or_too_short(advice: str, id: str) -> str:
    """What to do about an id that names nothing: the `advice`, unless it is too short for a beginning."""
    is_short = len(id) < SHORTEST_BEGINNING
    return f"the beginning of one takes {SHORTEST_BEGINNING} characters or more" if is_short else advice


_BAND = re.compile(r",[+-][12]$")

QUEUES = "rq:queues"
"""The set of the keys of all queues that jobs were ever enqueued to."""

WORKERS = "rq:workers"
"""The set of the keys of all registered workers."""

SUSPENDED = "rq:suspended"
"""Exists while `rq suspend` keeps all workers from claiming."""

LEASE_SECONDS = 12.0
"""A worker's right to its claims lasts this long if nobody renews it: longer than a network cut of 10 s."""

WORKER_TTL = 90
"""Seconds after which RQ forgets a worker that doesn't renew its registration."""

REGISTRIES = {
    "scheduled": "rq:scheduled:{}",
    "started": "rq:wip:{}",
    "finished": "rq:finished:{}",
    "failed": "rq:failed:{}",
    "deferred": "rq:deferred:{}",
    "canceled": "rq:canceled:{}",
}
"""RQ's sorted sets of job ids by status, one per queue; `started` holds `<job id>:<execution id>`."""

LEASES = "pm:leases"
"""The sorted set of workers by the end of their lease."""

LULL = "pm:lull"
"""Exists for a moment after an outage in which all leases ended, until all could renew theirs."""

WAITERS = ".waiters"
"""The field of a worker's claims that holds the ids of the connections on which it waits for jobs."""

PARENTS = "pm:parents"
"""The sorted set of ended jobs whose dependents are still to be enqueued."""

UNIQUE = "pm:unique"
"""The hash of unique jobs' keys to the jobs that hold them."""

QUIET = "pm:quiet"
"""The set of the keys of quiet workers' records."""

PAUSED = "pm:paused"
"""The set of the names of paused queues."""

QUEUE_RATES = "pm:queue-rates"
"""The hash of queues to their rate: microseconds per job, microseconds per burst, and the rate's text."""

DUE = "pm:due"
"""The sorted set of the groups that are blocked until a time, by that time."""

BATCHES = "pm:batches"
"""The sorted set of batches by the time of their creation."""

PAUSED_BATCHES = "pm:batches-paused"
"""The set of paused batches."""

QUARANTINE = "pm:quarantine"
"""The list of records and keys that were set aside, as JSON."""

ERRORS = "pm:errors"
"""The sorted set of errors, failures of the same cause, by when they were last seen."""

SETTLED_ERRORS = "pm:errors-settled"
"""The sorted set of those errors that are resolved or ignored."""

JOB_EVENTS = "pm:events"
"""The stream of what became of jobs."""

STATISTICS = "pm:stats:"
"""How the keys of all statistics begin."""

INDEXES = {"finished": "pm:index:finished", "failed": "pm:index:failed"}
"""The streams that name ended jobs, the newest last; stopped jobs are among the failed."""

INDEX_HEAD = 3
"""Texts in front of the ids of a group in an entry of an index: name, queue, class of the error."""

AUDIT = "pm:audit"
"""The stream of the commands that changed something."""

FULL = "pm:full"
"""Exists while the server is too full to take more jobs."""

LEADER = "pm:leader"
"""The hash in which the leading scheduler registers."""

SCHEDULER = "pm:scheduler"
"""The channel that tells schedulers in how many seconds something is due, or that one has `"resigned"`."""


def new_job_id() -> str:
    """A job id that nobody else has: 128 random bits in hex."""
    return new_job_ids(1)[0]


def new_job_ids(number: int) -> list[str]:
    """As many new job ids."""
    random = os.urandom(16 * number).hex()
    return [random[begin : begin + 32] for begin in range(0, len(random), 32)]


def queue_key(queue: str) -> str:
    """The list of the ids of the jobs that wait in `queue`, the next one at its head."""
    return f"rq:queue:{queue}"


def queue_keys(queue: str) -> tuple[str, ...]:
    """All lists of waiting jobs of `queue`, in the order in which they are served (`bands.lua`)."""
    key = queue_key(queue)
    return f"{key},+2", f"{key},+1", key, f"{key},-1", f"{key},-2"


def queue_name(key: str) -> str | None:
    """The name of the queue whose list is `key`; None for a band of a queue."""
    return None if _BAND.search(key) else key.removeprefix("rq:queue:")


def registry_key(status: str, queue: str) -> str:
    """RQ's sorted set of the jobs of `queue` in `status`."""
    return REGISTRIES[status].format(queue)


def job_key(job_id: str) -> str:
    """The hash that is the record of a job."""
    return f"rq:job:{job_id}"


def dependents_key(job_id: str) -> str:
    """RQ's set of the jobs that wait for a job."""
    return f"rq:job:{job_id}:dependents"


def dependencies_key(job_id: str) -> str:
    """RQ's set of the jobs that a job waits for."""
    return f"rq:job::{job_id}:dependencies"


def results_key(job_id: str) -> str:
    """The stream of a job's results, the newest last."""
    return f"rq:results:{job_id}"


def execution_key(job_id: str, execution: str) -> str:
    """RQ's hash of one execution of a job."""
    return f"rq:execution:{job_id}:{execution}"


def executions_key(job_id: str) -> str:
    """RQ's sorted set of the executions of a job."""
    return f"rq:executions:{job_id}"


def progress_key(job_id: str) -> str:
    """The hash of a job's progress counters."""
    return f"pm:progress:{job_id}"


def steps_key(job_id: str) -> str:
    """The hash of what a job remembers of its steps."""
    return f"pm:steps:{job_id}"


def signaled_key(signal: str) -> str:
    """The string that marks a signal as sent."""
    return f"pm:signaled:{signal}"


def log_key(job_id: str) -> str:
    """The stream of the lines of a job's log."""
    return f"pm:log:{job_id}"


def output_key(job_id: str) -> str:
    """The stream of the chunks of a job's output."""
    return f"pm:output:{job_id}"


def worker_key(worker: str) -> str:
    """The hash in which a worker registers."""
    return f"rq:worker:{worker}"


def worker_name(key: str) -> str:
    """The name of the worker whose hash is `key`."""
    return key.removeprefix("rq:worker:")


def workers_key(queue: str) -> str:
    """The set of the keys of the workers that serve a queue."""
    return f"rq:workers:{queue}"


def claims_key(worker: str) -> str:
    """The hash of the jobs that `worker` has claimed: job id to execution id."""
    return f"pm:claims:{worker}"


def waiting_key(worker: str) -> str:
    """The list of ids that were moved to `worker` while it was idle and are not yet claimed."""
    return f"pm:waiting:{worker}"


def stacks_key(worker: str) -> str:
    """The stacks that `worker` wrote last, JSON."""
    return f"pm:stacks:{worker}"


def commands_channel(worker: str) -> str:
    """RQ's channel for commands to `worker`."""
    return f"rq:pubsub:{worker}"


def connection_name(worker: str) -> str:
    """The name in `CLIENT LIST` of the connections on which `worker` waits; Redis allows no spaces there."""
    return "packmule-wait:" + re.sub(r"[^!-~]", "_", worker)


def groups_key(queue: str) -> str:
    """The hash of a queue's groups of waiting jobs to their heads; empty for a blocked group."""
    return f"pm:groups:{queue}"


def group_key(queue: str, group: str) -> str:
    """The list of the jobs of a group that wait behind its head."""
    return f"pm:group:{queue}:{group}"


def blocked_name(queue: str, group: str) -> str:
    """The member that stands for a group in `DUE` and `blocked_key`."""
    return f"{queue}\n{group}"


def blocked_key(key: str) -> str:
    """The sorted set of the groups that are blocked until a slot of `key` is free, in order."""
    return f"pm:blocked:{key}"


def holders_key(key: str) -> str:
    """The hash of the jobs that hold slots of `key`: job id to worker and execution id."""
    return f"pm:holders:{key}"


def host_name(machine: str = "") -> str:
    """The name of this machine as it is part of keys: `machine` if it is given, and its own otherwise."""
    return quote(machine or socket.gethostname(), safe="")


def key_of_host(key: str, host: str) -> str:
    """The key of the slots that `host`, quoted, has of a limit per host with this `key`."""
    return f"{key}@{host}"


def weights_key(key: str) -> str:
    """The hash of the jobs that hold more than one slot of `key`: job id to the slots beyond the first."""
    return f"pm:weights:{key}"


def batch_key(batch: str) -> str:
    """The hash of a batch; followed by `:jobs`, `:results` or `:held` it is one of its other keys."""
    return f"pm:batch:{batch}"


def deleted_key(call: str) -> str:
    """The set of the jobs that a call has deleted, for a while: it may be sent again."""
    return f"pm:deleted:{call}"


def webhook_counts_key(webhook: str) -> str:
    """The hash of what a webhook delivered."""
    return f"pm:webhook:{webhook}"


def error_key(fingerprint: str) -> str:
    """The hash of an error; followed by `:jobs` it is the list of the last jobs that failed of it."""
    return f"pm:error:{fingerprint}"
