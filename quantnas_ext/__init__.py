"""Quantization-aware neural architecture search on NNI.

The names of ``__init__.pyi``, here and in the rooms, are imported on first use, so that importing the package costs
neither torch nor NNI nor Lightning nor BasicSR.
"""

import os

import lazy_loader

from quantnas_ext.compat import prepare_nni

# A thread that waits for others sleeps rather than spins: beside other work spinning costs many times what it saves.
# OpenMP reads this when torch is loaded, so the recipes import this package first. Who has set one of them decides.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")
prepare_nni()  # imports nothing of it

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
