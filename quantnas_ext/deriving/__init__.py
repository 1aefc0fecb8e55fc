"""From a distribution to architectures: options of blocks, the knapsack, ranking, random ones, calibration."""

from quantnas_ext.compat import prepare_nni

prepare_nni()
