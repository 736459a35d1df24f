"""An SMTP client of our own: bounded in time and size, and pipelining where a server lets it."""
