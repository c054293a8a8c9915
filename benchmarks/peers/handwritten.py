"""Hand-written FastAPI route: the bytes of one picture in, JSON out; for uvicorn with two workers."""

import io
import os
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, Request
from PIL import Image
from torch import nn

network = nn.Sequential(
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
network.load_state_dict({key.removeprefix("layers."): value for key, value in state.items()})
network.eval()
torch.set_num_threads(1)

app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    """Predict the digit in a picture, resized to 28x28, and the probability of each digit."""
    picture = Image.open(io.BytesIO(await request.body())).convert("L")
    if picture.size != (28, 28):
        picture = picture.resize((28, 28))
    sample = torch.from_numpy(np.array(picture)).float().div(255)[None, None]
    with torch.inference_mode():
        probabilities = network(sample).softmax(dim=1)[0]
    label = int(probabilities.argmax())
    return {"label": label, "probability": float(probabilities[label]), "probabilities": probabilities.tolist()}
