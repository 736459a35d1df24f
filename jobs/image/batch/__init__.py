"""Many images at once: whole folders, done once, resumed where they stopped, and listed in a manifest."""
