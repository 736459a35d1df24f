"""The fault drill: inject faults under load, and check that every promise is kept."""
