"""Operators of our own for ONNX Runtime on a CPU, and how a graph comes to use them (docs/kernels.md)."""
