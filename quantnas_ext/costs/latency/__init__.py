"""Latency of a space's blocks, measured part by part, and the table that adds them up."""

from quantnas_ext.compat import prepare_nni

prepare_nni()
