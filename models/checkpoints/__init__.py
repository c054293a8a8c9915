"""Checkpoints: record, state_dict, ONNX export and storage."""
