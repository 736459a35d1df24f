"""The fault drill: inject faults under load, and judge what the promises are worth."""
