"""The pool: the supervisor of worker processes, and what it looks after."""
