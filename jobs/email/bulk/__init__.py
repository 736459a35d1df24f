"""Bulk sends: one mail to each recipient of a list, in chunks that are jobs of one batch."""
