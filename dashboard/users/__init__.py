"""Users of the dashboard: who may come in, as what, and how each proves it."""
