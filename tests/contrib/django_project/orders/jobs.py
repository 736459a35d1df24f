"""The shop's jobs."""

import os

from django.db import connection

from orders.models import Order
from packmule import current, job


@job
def pay(order: int) -> int:
    """Pay an order."""
    Order.objects.filter(pk=order).update(paid=True, payer=current.job_id() or "")
    return order


@job(isolate=True)
def count_apart() -> tuple[int, int]:
    """Count in a process of its own, beside the worker's connection."""
    return Order.objects.count(), os.getpid()


@job
async def count_async() -> int:
    """Count on the event loop."""
    return await Order.objects.acount()


@job
def kept() -> list[int]:
    """Which connection this job has."""
    Order.objects.count()
    return [id(connection.connection), os.getpid()]
