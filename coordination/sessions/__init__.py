"""Sessions, refresh tokens, API tokens, one-time links, limited attempts: who may come in, how long."""
