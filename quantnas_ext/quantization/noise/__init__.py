"""Quantization noise: its size, its random numbers, and convolutions with it."""
