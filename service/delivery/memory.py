"""Errors that say that memory is exhausted."""

import sys


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error says so, of the host or of a device that PyTorch computes on."""
    torch = sys.modules.get("torch")  # not imported for this
    return isinstance(err, MemoryError) or (torch is not None and isinstance(err, torch.OutOfMemoryError))
