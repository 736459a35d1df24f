"""Observation: what happened to jobs, as events, statistics, metrics and audit."""
