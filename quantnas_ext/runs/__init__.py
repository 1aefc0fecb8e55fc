"""Runs: their configuration and identity, what they record, how their commands start and end."""
