"""Limits: rates and concurrency by key."""
