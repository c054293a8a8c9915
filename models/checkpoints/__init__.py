"""Checkpoints: the record, the state_dict, the ONNX export, and where they are stored."""
