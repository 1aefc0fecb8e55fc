"""What model spaces are made of: precision-mutable layers, candidate operations, choice blocks, residuals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
