"""Schedules: which job is enqueued when."""
