"""Suppression: addresses and domains that get no mail, why, and until when."""
