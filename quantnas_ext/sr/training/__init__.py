"""The final training in BasicSR."""
