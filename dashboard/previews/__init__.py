"""Previews: what a job has made, shown on its page, and the files that may be fetched from there."""
