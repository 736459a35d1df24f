"""The HTTP API, at `/api/v1`."""
