"""Mail providers by their HTTP APIs: what each wants as data, one way to send, and their events."""
