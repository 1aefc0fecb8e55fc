"""What stands in place of a space's modules while it is searched."""
