"""From a model space to an architecture: the QuantNAS strategy and what it is made of."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
