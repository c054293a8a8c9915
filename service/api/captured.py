"""Captured samples as the API shows them, and the picture files of captured bodies."""

import io
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from models.errors import InvalidInput, shown
from models.pictures import PICTURE_FORMATS, format_of
from models.signature import Picture, listed
from models.spec import ModelSpec
from service.api.capture_schemas import SampleInfo, TruthInfo
from service.data.capture_rows import entry_of
from service.data.captures import Capture
from service.data.said import ONLY
from service.data.sampled import Sampled
from service.errors import NotFound, ServiceError
from service.media_types import MULTIPART, plain
from service.web.multipart import files

MOST_NUMBERS = 1_024  # of a sample that is shown
_LONGEST = 10_000  # characters of a text that is shown
Entries = Sequence[Mapping[str, Any]]  # rows of feedback


def picture_files(one: Sampled, specs: Mapping[str, ModelSpec]) -> Mapping[int, bytes]:
    """Return the picture files of a body, by the position of their sample: of a body that is one file, or of a form.

    None of a form if the model takes several pictures a sample.
    """
    if plain(one.content_type) != MULTIPART:
        return {0: one.body} if format_of(one.body) else {}
    if sum(isinstance(kind, Picture) for kind in specs[one.model].inputs.values()) > 1:
        return {}
    try:
        return dict(enumerate(files(one.content_type, one.body)))
    except (ServiceError, InvalidInput):
        return {}


def sample_info(capture: Capture, entries: Entries) -> SampleInfo:
    """Describe a captured sample that has its content."""
    return SampleInfo(
        id=capture.id,
        index=capture.position,
        version=capture.version,
        at=capture.at,
        key=capture.key,
        said=shown_said(capture),
        inputs=inputs_of(capture),
        picture=picture_of(capture),
        pictures=pictures_of(capture),
        original=capture.original is not None,
        feedback=truth_infos(entries),
    )


def truth_infos(entries: Entries) -> list[TruthInfo]:
    """Describe the feedback about a sample."""
    return [TruthInfo(**{name: row[name] for name in TruthInfo.model_fields}) for row in entries]


def inputs_of(capture: Capture) -> Any:
    """Return a sample as an entry of `inputs`, without its large values; None if it is one, or gone."""
    return None if capture.content is None else _jsonable(entry_of(capture.content))


def shown_answer(capture: Capture) -> Any:
    """Return the numbers of an answer, without its large arrays; None if it is one, or gone."""
    return None if capture.answer is None else _jsonable(entry_of(capture.answer))


def shown_said(capture: Capture) -> dict[str, dict[str, Any]] | None:
    """Return the labels and values of an answer by output."""
    return None if capture.said is None else {name: dict(part) for name, part in capture.said.items()}


def picture_of(capture: Capture) -> str | None:
    """Return the address of the picture of a sample, of its first one if it has several."""
    return next(iter(pictures_of(capture).values()), None)


def pictures_of(capture: Capture) -> Mapping[str, str]:
    """Return the address of each picture of a sample by the name of its input, "" without a name."""
    path = f"/models/{capture.model}/captures/{capture.id}/{capture.position}/picture.png"
    return {name: f"{path}?input={quote(name)}" if name else path for name in _pixels(capture)}


def png_of(capture: Capture, name: str | None) -> bytes:
    """Return a picture of a sample as the model's reader has made it, by default the first one. Raises NotFound."""
    pixels = _pixels(capture)
    if not pixels:
        raise NotFound(f"sample {capture.position} of prediction {capture.id} is no picture")
    if name is not None and name not in pixels:
        raise NotFound(f"{shown(name)} is no picture of the sample; its pictures are {listed(list(pixels))}")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[next(iter(pixels)) if name is None else name])).save(file, "PNG")
    return file.getvalue()


def original_of(capture: Capture) -> tuple[bytes, str]:
    """Return the picture file of a sample as it came, and its media type. Raises NotFound if it is not kept."""
    kind = None if capture.original is None else format_of(capture.original)
    if capture.original is None or kind is None:
        raise NotFound(
            f"the file of sample {capture.position} of prediction {capture.id} is not kept: set `originals` of the "
            "capture to keep those to come"
        )
    return capture.original, next(name for name, other in PICTURE_FORMATS.items() if other == kind)


def _pixels(capture: Capture) -> dict[str, Any]:
    """Return the arrays of a sample that have the form of pixels, uint8 (h, w) or (h, w, 3), by name."""
    if capture.content is None:
        return {}
    entry = entry_of(capture.content)
    named = entry if isinstance(entry, dict) else {ONLY: entry}
    return {name: array for name, array in named.items() if _is_picture(array)}


def _is_picture(array: Any) -> bool:
    is_bytes = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.size > 0
    return bool(
        is_bytes and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) and min(array.shape[:2]) > 1
    )


def _jsonable(entry: Any) -> Any:
    """Return an array, or values by name, for JSON: without those that are too large, None if it is one."""
    if isinstance(entry, dict):
        return {name: _plain(value) for name, value in entry.items() if not _is_large(value)}
    return None if _is_large(entry) else _plain(entry)


def _is_large(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.size > MOST_NUMBERS)
    return isinstance(value, str) and len(value) > _LONGEST


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
