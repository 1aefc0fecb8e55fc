"""The loop of a search: steps, phases, checkpoints, processes, evaluators."""
