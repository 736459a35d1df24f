"""All pages, in the order of the menu."""

from __future__ import annotations

from packmule.dashboard.pages import (
    approvals,
    batches,
    bulk,
    errors,
    flows,
    job,
    job_acts,
    job_files,
    jobs,
    limits,
    metrics,
    new_job,
    overview,
    queues,
    records,
    schedules,
    settings,
    ticked,
    webhooks,
    workers,
)

ROUTES = [
    *overview.ROUTES,
    *queues.ROUTES,
    *jobs.ROUTES,
    *ticked.ROUTES,
    *new_job.ROUTES,
    *job.ROUTES,
    *job_acts.ROUTES,
    *job_files.ROUTES,
    *approvals.ROUTES,
    *bulk.ROUTES,
    *flows.ROUTES,
    *batches.ROUTES,
    *errors.ROUTES,
    *schedules.ROUTES,
    *workers.ROUTES,
    *limits.ROUTES,
    *metrics.ROUTES,
    *records.ROUTES,
    *webhooks.ROUTES,
    *settings.ROUTES,
]
