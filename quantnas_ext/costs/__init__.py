"""What an architecture costs: layers traced, BitOps, bytes, latency, and budgets for them."""

from quantnas_ext.compat import prepare_nni

prepare_nni()
