"""Retention: what jobs have made goes when it is old, or too much, and no job needs it any more."""
