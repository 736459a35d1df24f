"""Maintenance: the leader promotes, repairs, prunes, and limits memory."""
