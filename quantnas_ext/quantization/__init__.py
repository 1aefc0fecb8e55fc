"""Quantization in pure torch: precisions, LSQ and HWGQ quantizers, quantized layers, quantization noise."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
