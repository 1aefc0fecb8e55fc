"""Latency of a space's blocks, measured part by part, and the table that adds them up."""
