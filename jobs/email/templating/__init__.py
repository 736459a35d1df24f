"""Templates of mails: rendered in a sandbox that no template can leave or hold."""
