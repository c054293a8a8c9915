"""A picture without its noise: the answer is a picture of the same size."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from models.errors import InvalidInput
from models.signature import Output, Picture
from models.spec import Array, ModelSpec, by_name

LARGEST = 512  # px, of a side


def read(picture: Image.Image) -> Array:
    """Return the grey levels of a picture, uint8 (height, width). Raises InvalidInput if it is too large."""
    if max(picture.size) > LARGEST:
        size = f"{picture.width}x{picture.height}"
        raise InvalidInput("Picture too large", f"the picture has {size} pixels; send at most {LARGEST}x{LARGEST}")
    return np.asarray(picture.convert("L"))


def rounded(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Turn levels float32 (N, height, width) into uint8."""
    return {"clean": np.clip(np.rint(outputs["clean"]), 0, 255).astype(np.uint8)}


SPEC = ModelSpec(
    summary="a grey picture without its noise",
    network=by_name("models.denoise_network:Denoiser"),
    inputs={"picture": Picture(read, (None, None))},
    outputs={"clean": Output((None, None), np.uint8, picture=True)},
    postprocess=rounded,
    example=[{"picture": Image.linear_gradient("L").resize((24, 16))}],
)
