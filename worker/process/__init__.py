"""A worker process: what claims, performs and acknowledges jobs."""
