"""Jobs: how they are written, enqueued and read, and the ready-made ones."""
