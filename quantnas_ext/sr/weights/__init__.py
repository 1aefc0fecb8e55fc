"""Weights of networks in files, and what they are weights of."""
