"""LitServe with batching: JSON with the picture in base64, as in its performance guide; two inference workers."""

import base64
import io
import os
import sys
from typing import Any

import litserve as ls
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn


class Digits(ls.LitAPI):  # type: ignore[misc] # litserve is not installed in the environment of mypy
    """Predict one picture, {"image_data": base64 of a PNG}, or many, {"samples": base64 of uint8 (N, 28, 28)}."""

    def setup(self, device: str) -> None:
        """Load the network, once in each worker."""
        torch.set_num_threads(1)
        self.network = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(1568, 10),
        )
        state = torch.load(os.environ["CHECKPOINT"], weights_only=True, map_location=device)
        self.network.load_state_dict({key.removeprefix("layers."): value for key, value in state.items()})
        self.network.eval()

    def decode_request(self, request: dict[str, Any]) -> Tensor:
        """Decode JSON to uint8 (N, 1, 28, 28)."""
        if "samples" in request:
            content = bytearray(base64.b64decode(request["samples"]))
            return torch.frombuffer(content, dtype=torch.uint8).view(-1, 1, 28, 28)
        picture = Image.open(io.BytesIO(base64.b64decode(request["image_data"]))).convert("L")
        return torch.from_numpy(np.array(picture))[None, None]

    def batch(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the inputs unchanged, since requests have different numbers of samples."""
        return inputs

    def predict(self, requests: list[Tensor]) -> list[Tensor]:
        """Return the probabilities (N, 10) of each request."""
        with torch.inference_mode():
            probabilities = self.network(torch.cat(requests).float().div(255)).softmax(dim=1)
        return list(probabilities.split([len(samples) for samples in requests]))

    def unbatch(self, output: list[Tensor]) -> list[Tensor]:
        """Return the output unchanged: it has one entry per request."""
        return output

    def encode_response(self, output: Tensor) -> dict[str, Any]:
        """Build the JSON response."""
        return {
            "predictions": [
                {"label": max(range(10), key=row.__getitem__), "probability": max(row), "probabilities": row}
                for row in output.tolist()
            ],
        }


if __name__ == "__main__":
    api = Digits(max_batch_size=64, batch_timeout=0.001)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=2, log_level="warning", generate_client_file=False,
        access_log=False,
    )  # fmt: skip
