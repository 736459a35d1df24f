"""How mails leave: over SMTP, by a provider's HTTP API, or into a file, and at which pace."""
