"""Choices of a space, and the distribution over them that a search learns."""

from quantnas_ext.compat import prepare_nni

prepare_nni()
