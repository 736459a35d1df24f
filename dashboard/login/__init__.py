"""Logging in to the dashboard: by password, code, link or a proxy; and what users change of their own."""
