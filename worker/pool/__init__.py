"""The pool: the supervisor of worker processes."""
