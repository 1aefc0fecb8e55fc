"""Choices of a space, and the distribution over them that a search learns."""
