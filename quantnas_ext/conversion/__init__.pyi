from .conversion import quantize
from .quantized_space import QuantizedSpace
from .report import ConversionReport, ConvertedLayer, LeftLayer

__all__ = ["ConversionReport", "ConvertedLayer", "LeftLayer", "QuantizedSpace", "quantize"]
