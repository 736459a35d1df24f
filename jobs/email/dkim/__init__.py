"""DKIM: signatures by which receivers know that a mail is its domain's, and was not changed (RFC 6376)."""
