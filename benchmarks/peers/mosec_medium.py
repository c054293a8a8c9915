"""mosec for a medium network: the bytes of one picture in, JSON out; two workers of one stage with dynamic batching.

PROGRAM names the network, as torch.export wrote it. It runs in eager PyTorch.
"""

import io
import json
import os
from typing import Any

import numpy as np
import torch
from mosec import Server, ValidationError, Worker
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
SPREAD = np.array([0.229, 0.224, 0.225], np.float32)


class Pictures(Worker):  # type: ignore[misc] # mosec is not installed in the environment of mypy
    """Decode, run the network and encode the response in one stage."""

    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(1)
        self.network = torch.export.load(os.environ["PROGRAM"]).module()

    def deserialize(self, data: bytes) -> Any:
        """Decode a body to float32 (3, 224, 224)."""
        try:
            picture = Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224))
        except OSError as err:
            raise ValidationError(f"not a picture: {err}") from err
        return ((np.asarray(picture, np.float32) / 255 - MEAN) / SPREAD).transpose(2, 0, 1)

    def serialize(self, data: Any) -> bytes:
        """Encode a response as JSON without line breaks."""
        return json.dumps(data).encode()

    def forward(self, data: list[Any]) -> list[dict[str, Any]]:
        """Predict one batch."""
        with torch.inference_mode():
            rows = self.network(torch.from_numpy(np.stack(data))).softmax(dim=1).tolist()
        return [{"label": row.index(max(row)), "probability": max(row), "probabilities": row} for row in rows]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Pictures, num=2, max_batch_size=8, max_wait_time=1)
    server.run()
