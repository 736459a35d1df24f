"""Streams of events, consumer groups, and publish and subscribe."""
