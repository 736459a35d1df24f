"""Webhooks: events of jobs are posted to URLs."""
