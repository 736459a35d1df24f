"""Bulk actions: one act on all jobs that fit a filter, counted first, with a record of what became of it."""
