"""What stands in place of a space's modules while it is searched."""

from quantnas_ext.compat import prepare_nni

prepare_nni()
