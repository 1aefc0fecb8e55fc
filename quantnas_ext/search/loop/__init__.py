"""The loop of a search: steps, phases, checkpoints, processes, evaluators."""

from quantnas_ext.compat import prepare_nni

prepare_nni()
