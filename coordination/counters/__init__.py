"""Counters: histograms and leaderboards."""
