"""The check: whether the settings are right, and what the servers that they name can promise."""
