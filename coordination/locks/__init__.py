"""Locks: Redlock over independent servers, with fencing tokens."""
