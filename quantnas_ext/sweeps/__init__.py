"""Sweeps: many runs as the trials of one NNI experiment, watched in NNI's web portal."""
