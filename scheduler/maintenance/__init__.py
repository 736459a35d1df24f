"""Maintenance: what the leader keeps in order."""
