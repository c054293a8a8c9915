"""Decode a request body into the samples of a model, by its media type. No HTTP in this module."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from PIL import Image

from models.errors import InvalidInput, MalformedInput
from models.pictures import PICTURE_FORMATS, format_of, open_picture
from models.spec import Array, ModelSpec
from service.errors import UnsupportedMediaType
from service.execution.threads import INLINE_BYTES, Threads
from service.inference.arrays import Entries, checked, from_json, from_npy, stacked
from service.inference.png import read_plain_png
from service.media_types import JSON, MULTIPART, NPY, OCTETS, may_be_picture

log = logging.getLogger(__name__)

_ARRAYS = {JSON: (from_json, 1), NPY: (from_npy, 16)}  # parser, and its speed as a multiple of the JSON parser's
_WRONG_FORMS = {"Wrong body", "Wrong inputs", "Wrong sample"}
_HOW_TO_SEND_PICTURES = (
    "To send a picture, send the bytes of its file as the body, with Content-Type: image/png; several as files of a "
    "multipart form. Base64 and data URLs are not read"
)
_AS_TEXT = (b"data:", b"iVBORw0KGgo", b"/9j/", b"R0lGOD", b"UklGR")  # data URLs; base64 of PNG, JPEG, GIF and WebP
_INLINE_PIXELS = 65_536  # a larger picture is decoded in a thread
_PICTURES = {*PICTURE_FORMATS, OCTETS, ""}


def media_types(spec: ModelSpec) -> list[str]:
    """Return the media types that a model accepts, the most convenient first."""
    pictures = [*PICTURE_FORMATS, OCTETS, MULTIPART] if spec.picture else []
    return [*pictures, JSON, NPY]


def unsupported(media_type: str, spec: ModelSpec) -> UnsupportedMediaType:
    """Return the error for a body of a media type that the model does not accept."""
    sent = repr(media_type) if media_type else "no Content-Type"
    return UnsupportedMediaType(f"the body came with {sent}; send one of {', '.join(media_types(spec))}")


def _is_picture(media_type: str) -> bool:
    return media_type in _PICTURES or may_be_picture(media_type)


@dataclass(frozen=True, slots=True)
class Samples:
    """A decoded body: good samples (k, ...), the error of each other sample by its position, and the total count."""

    good: Array
    errors: Mapping[int, InvalidInput]
    count: int


def samples_of(spec: ModelSpec, entries: Entries) -> Samples:
    """Preprocess the good entries. Raises the first entry's InvalidInput if no entry is good, naming it if it is one
    of several.
    """
    if not len(entries.good):
        error = entries.errors[0]
        raise error if len(entries) == 1 else InvalidInput(error.title, f"sample 0: {error.detail}")
    return Samples(spec.preprocess(entries.good), entries.errors, len(entries))


def _array_samples(media_type: str, spec: ModelSpec, body: bytes) -> Samples:
    """Decode a body of numbers, and refuse the entries that do not look like the training data.

    If a model of pictures can read no entry of a JSON body, the error says how pictures are sent.
    """
    try:
        return samples_of(spec, checked(_ARRAYS[media_type][0](body, spec.entry), spec.check))
    except InvalidInput as err:
        found = err.alone()  # without its traceback, which holds the body
    if spec.picture is not None:
        if isinstance(found, MalformedInput) and format_of(body):
            detail = f"the body is a picture, sent as {media_type}: declare it, for example as image/png"
            raise MalformedInput(found.title, detail)
        if media_type == JSON and found.title in _WRONG_FORMS and not isinstance(found, MalformedInput):
            raise InvalidInput(found.title, f"{found.detail}. {_HOW_TO_SEND_PICTURES}")
    raise found


class Decoder:
    """Decodes bodies: small ones on the event loop, large ones in a thread."""

    def __init__(self, max_pixels: int, threads: Threads) -> None:
        self._max_pixels = max_pixels
        self._threads = threads

    def accepts(self, media_type: str, spec: ModelSpec) -> bool:
        """Whether `decode` supports the media type. Multipart forms are split by the caller: see `pictures`."""
        return media_type in _ARRAYS or (spec.picture is not None and _is_picture(media_type))

    def decodes_inline(self, media_type: str, spec: ModelSpec, size: int) -> bool:
        """Whether `decode_inline` can decode a body of `size` bytes without stalling the event loop."""
        if media_type in _ARRAYS:
            return size // _ARRAYS[media_type][1] <= INLINE_BYTES
        return spec.picture is not None and size <= INLINE_BYTES and _is_picture(media_type)

    def decode_inline(self, media_type: str, spec: ModelSpec, body: bytes) -> Samples | None:
        """Decode a small body on the event loop. Returns None if the picture is too large and needs a thread.

        Raises MalformedInput, or the InvalidInput of a body without a good sample.
        """
        if media_type in _ARRAYS:
            return _array_samples(media_type, spec, body)
        entry = self._entry(body, spec)
        return None if isinstance(entry, Image.Image) else samples_of(spec, Entries(entry[None]))

    async def decode(self, media_type: str, spec: ModelSpec, body: bytes) -> Samples:
        """Decode a body of a media type that `accepts` names.

        Raises MalformedInput, or the InvalidInput of a body without a good sample.
        """
        if media_type in _ARRAYS:
            size = len(body) // _ARRAYS[media_type][1]
            return await self._threads.run_if_large(size, partial(_array_samples, media_type, spec, body))
        entries = Entries((await self._picture(body, spec))[None])
        return await self._threads.run_if_large(entries.good.nbytes, partial(samples_of, spec, entries))

    async def pictures(self, contents: Iterable[bytes], spec: ModelSpec) -> Entries:
        """Decode several pictures. A bad picture is the error of its entry only."""
        good: list[Array] = []
        errors: dict[int, InvalidInput] = {}
        for position, content in enumerate(contents):
            try:
                good.append(await self._picture(content, spec))
            except InvalidInput as err:
                errors[position] = err.alone()
        return stacked(good, errors, spec.entry)

    async def _picture(self, content: bytes, spec: ModelSpec) -> Array:
        """Decode one picture into one entry. Raises InvalidInput."""
        if len(content) > INLINE_BYTES:
            return await self._threads.run(lambda: _read(spec, open_picture(content, self._max_pixels)))
        entry = self._entry(content, spec)
        if isinstance(entry, Image.Image):
            return await self._threads.run(partial(_read, spec, entry))
        return entry

    def _entry(self, content: bytes, spec: ModelSpec) -> Array | Image.Image:
        """Decode one picture into one entry, or return it opened but not decoded if it has too many pixels.

        The format is detected from the bytes: clients often declare another one. Raises InvalidInput.
        """
        if spec.grey is not None:
            pixels = read_plain_png(content)
            if pixels is not None and pixels.size <= self._max_pixels and (entry := spec.grey(pixels)) is not None:
                return entry
        if content.startswith(_AS_TEXT):
            raise InvalidInput("No picture", f"the picture is written as text. {_HOW_TO_SEND_PICTURES}")
        picture = open_picture(content, self._max_pixels)
        return _read(spec, picture) if picture.width * picture.height <= _INLINE_PIXELS else picture


def _read(spec: ModelSpec, picture: Image.Image) -> Array:
    """Decode an opened picture into one entry. Raises InvalidInput, whatever the model's reader raises."""
    assert spec.picture
    try:
        return spec.picture(picture)
    except InvalidInput:
        raise
    except Exception as err:
        log.warning("a picture could not be read", exc_info=True)
        detail = "the picture cannot be decoded: it may be damaged. Save it again as PNG and send that"
        raise InvalidInput("Unreadable picture", detail) from err
