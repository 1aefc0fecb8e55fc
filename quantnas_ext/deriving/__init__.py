"""From a distribution to architectures: options of blocks, the knapsack, ranking, random ones, calibration."""
