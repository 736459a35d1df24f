"""Requests to URLs that others chose: one door for webhooks and downloads."""
