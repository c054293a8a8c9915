"""Backends that run a network: ONNX Runtime and PyTorch."""
