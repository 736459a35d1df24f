"""A worker process: it claims, performs and acknowledges jobs."""
