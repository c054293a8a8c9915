"""LitServe with batching for a medium network: JSON with the picture in base64; two inference workers.

PROGRAM names the network, as torch.export wrote it. It runs in eager PyTorch.
"""

import base64
import io
import os
import sys
from typing import Any

import litserve as ls
import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
SPREAD = np.array([0.229, 0.224, 0.225], np.float32)


class Pictures(ls.LitAPI):  # type: ignore[misc] # litserve is not installed in the environment of mypy
    """Predict the class of a picture, {"image_data": base64 of its file}."""

    def setup(self, _: str) -> None:
        """Load the network, once in each worker."""
        torch.set_num_threads(1)
        self.network = torch.export.load(os.environ["PROGRAM"]).module()

    def decode_request(self, request: dict[str, Any]) -> Tensor:
        """Decode JSON to float32 (3, 224, 224)."""
        picture = Image.open(io.BytesIO(base64.b64decode(request["image_data"]))).convert("RGB").resize((224, 224))
        pixels = (np.asarray(picture, np.float32) / 255 - MEAN) / SPREAD
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def predict(self, samples: Tensor) -> Tensor:
        """Return the probabilities (N, classes) of samples (N, 3, 224, 224)."""
        with torch.inference_mode():
            probabilities: Tensor = self.network(samples).softmax(dim=1)
        return probabilities

    def encode_response(self, output: Tensor) -> dict[str, Any]:
        """Build the JSON response."""
        label = int(output.argmax())
        return {"label": label, "probability": float(output[label]), "probabilities": output.tolist()}


if __name__ == "__main__":
    api = Pictures(max_batch_size=8, batch_timeout=0.001)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning", generate_client_file=False,
        access_log=False,
    )  # fmt: skip
