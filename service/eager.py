"""Networks in PyTorch: the reference, and what runs on GPUs. Importing this imports torch."""

from pathlib import Path

import torch

from models import checkpoint
from models.record import Record
from models.spec import Array, ModelSpec
from service.engine import Network


class EagerBackend:
    """PyTorch on one device."""

    def __init__(self, device: str, threads: int) -> None:
        self._device = torch.device(device)
        if self._device.type == "cpu":
            torch.set_num_threads(threads)

    def load(self, model: str, spec: ModelSpec, path: Path, record: Record) -> Network:
        """See Backend."""
        network, _ = checkpoint.load(model, spec, path, record)
        network = network.to(self._device)

        def run(samples: Array) -> Array:
            tensor = torch.from_numpy(samples if samples.flags.writeable else samples.copy())
            with torch.inference_mode():
                outputs: Array = network(tensor.to(self._device)).cpu().numpy()
            return outputs

        return Network(run, run, "eager")
