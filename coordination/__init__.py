"""Coordination: what Redis gives us. It knows no jobs."""
