"""Executors: where the bodies of jobs run."""
