"""mosec: the bytes of one picture in, JSON out; two workers of one stage, with or without dynamic batching.

A batch of 16 and a wait of 1 ms gave the highest rate; also tried: a batch of 64, a wait of 10 ms, one worker, and a
second stage for decoding.
"""

import io
import json
import os
from typing import Any

import numpy as np
import torch
from mosec import Server, ValidationError, Worker
from PIL import Image
from torch import nn


class Digits(Worker):  # type: ignore[misc] # mosec is not installed in the environment of mypy
    """Decode, run the network and encode the response in one stage."""

    def __init__(self) -> None:
        super().__init__()
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
        state = torch.load(os.environ["CHECKPOINT"], weights_only=True)
        self.network.load_state_dict({key.removeprefix("layers."): value for key, value in state.items()})
        self.network.eval()

    def deserialize(self, data: bytes) -> Any:
        """Decode a body to uint8 (28, 28)."""
        try:
            return np.array(Image.open(io.BytesIO(data)).convert("L"))
        except OSError as err:
            raise ValidationError(f"not a picture: {err}") from err

    def serialize(self, data: Any) -> bytes:
        """Encode a response as JSON without line breaks."""
        return json.dumps(data).encode()

    def forward(self, data: list[Any]) -> list[dict[str, Any]]:
        """Predict one batch."""
        samples = torch.from_numpy(np.stack(data))[:, None].float().div(255)
        with torch.inference_mode():
            rows = self.network(samples).softmax(dim=1).tolist()
        return [{"label": row.index(max(row)), "probability": max(row), "probabilities": row} for row in rows]


class OneByOne(Digits):
    """Worker without batching, which is faster for a single caller."""

    def forward(self, data: Any) -> Any:
        """Predict one sample."""
        return super().forward([data])[0]


if __name__ == "__main__":
    server = Server()
    if os.environ["BATCHED"] == "1":
        server.append_worker(Digits, num=2, max_batch_size=16, max_wait_time=1)
    else:
        server.append_worker(OneByOne, num=2)
    server.run()
