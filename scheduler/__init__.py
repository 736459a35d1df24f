"""The scheduler: what must happen once per cluster, done by one leader at a time."""
