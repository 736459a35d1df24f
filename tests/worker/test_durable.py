"""Durable work under faults: the short form of its fault run."""

from __future__ import annotations

from packmule.tests.worker import durable_faults


def test_steps_signals_and_flows_are_exact_while_workers_the_server_and_leaders_fail():
    report = durable_faults.run(kills=12, server_kills=1, freezes=1, frozen_pools=1)
    assert report.broken() == []
    assert report.orders > durable_faults.ORDERS
    assert report.flows >= durable_faults.FLOWS
