"""Hand-written FastAPI route for a medium network: the bytes of one picture in, JSON out; for uvicorn with two workers.

PROGRAM names the network, as torch.export wrote it. It runs in eager PyTorch.
"""

import io
import os
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, Request
from PIL import Image

network = torch.export.load(os.environ["PROGRAM"]).module()
torch.set_num_threads(1)
mean = np.array([0.485, 0.456, 0.406], np.float32)
spread = np.array([0.229, 0.224, 0.225], np.float32)

app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    """Predict the class of a picture, resized to 224x224, and the probability of each class."""
    picture = Image.open(io.BytesIO(await request.body())).convert("RGB").resize((224, 224))
    pixels = (np.asarray(picture, np.float32) / 255 - mean) / spread
    sample = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    with torch.inference_mode():
        probabilities = network(sample).softmax(dim=1)[0]
    label = int(probabilities.argmax())
    return {"label": label, "probability": float(probabilities[label]), "probabilities": probabilities.tolist()}
