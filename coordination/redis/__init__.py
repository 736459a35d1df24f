"""Redis itself: connections, the embedded server, Lua scripts, and what to do while it is unavailable."""
