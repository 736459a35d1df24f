"""The fault drill: faults under load, and the verdict."""
