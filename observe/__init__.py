"""Observation: what became of jobs, as events, statistics, metrics and audit."""
