"""What an architecture costs: layers traced, BitOps, bytes, latency, and budgets for them."""
