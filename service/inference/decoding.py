"""Decode a request body into the samples of a model, by its media type. No HTTP in this module."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from PIL import Image

from models.errors import InvalidInput
from models.pictures import PICTURE_FORMATS, open_picture
from models.spec import Array, ModelSpec
from service.errors import UnsupportedMediaType
from service.execution.threads import INLINE_BYTES, Threads
from service.inference.arrays import Entries, from_json, from_npy, stacked
from service.inference.png import read_plain_png
from service.media_types import JSON, MULTIPART, NPY, OCTETS

_ARRAYS = {JSON: (from_json, 1), NPY: (from_npy, 16)}  # parser, and its speed as a multiple of the JSON parser's
_INLINE_PIXELS = 65_536  # a larger picture is decoded in a thread
_PICTURES = {*PICTURE_FORMATS, OCTETS, ""}
_MAYBE_PNG = {"image/png", OCTETS, ""}


def media_types(spec: ModelSpec) -> list[str]:
    """Return the media types that a model accepts, the most convenient first."""
    pictures = [*PICTURE_FORMATS, OCTETS, MULTIPART] if spec.picture else []
    return [*pictures, JSON, NPY]


def unsupported(media_type: str, spec: ModelSpec) -> UnsupportedMediaType:
    """Return the error for a body of a media type that the model does not accept."""
    sent = repr(media_type) if media_type else "no Content-Type"
    return UnsupportedMediaType(f"the body came with {sent}; send one of {', '.join(media_types(spec))}")


@dataclass(frozen=True, slots=True)
class Samples:
    """A decoded body: good samples (k, ...), the error of each other sample by its position, and the total count."""

    good: Array
    errors: Mapping[int, InvalidInput]
    count: int


def samples_of(spec: ModelSpec, entries: Entries) -> Samples:
    """Preprocess the good entries. Raises the first entry's InvalidInput if no entry is good."""
    if not len(entries.good):
        raise next(iter(entries.errors.values()))
    return Samples(spec.preprocess(entries.good), entries.errors, len(entries))


class Decoder:
    """Decodes bodies: small ones on the event loop, large ones in a thread."""

    def __init__(self, max_pixels: int, threads: Threads) -> None:
        self._max_pixels = max_pixels
        self._threads = threads

    def accepts(self, media_type: str, spec: ModelSpec) -> bool:
        """Whether `decode` supports the media type. Multipart forms are split by the caller: see `pictures`."""
        return media_type in _ARRAYS or (spec.picture is not None and media_type in _PICTURES)

    def decodes_inline(self, media_type: str, spec: ModelSpec, size: int) -> bool:
        """Whether `decode_inline` can decode a body of `size` bytes without stalling the event loop."""
        if media_type in _ARRAYS:
            return size // _ARRAYS[media_type][1] <= INLINE_BYTES
        return spec.picture is not None and media_type in _PICTURES and size <= INLINE_BYTES

    def decode_inline(self, media_type: str, spec: ModelSpec, body: bytes) -> Samples | None:
        """Decode a small body on the event loop. Returns None if the picture is too large and needs a thread.

        Raises MalformedInput, or the InvalidInput of a body without a good sample.
        """
        if media_type in _ARRAYS:
            return samples_of(spec, _ARRAYS[media_type][0](body, spec.entry))
        entry = self._entry(body, media_type, spec)
        return None if isinstance(entry, Image.Image) else samples_of(spec, Entries(entry[None]))

    async def decode(self, media_type: str, spec: ModelSpec, body: bytes) -> Samples:
        """Decode a body of a media type that `accepts` names.

        Raises MalformedInput, or the InvalidInput of a body without a good sample.
        """
        if media_type in _ARRAYS:
            parse, speed = _ARRAYS[media_type]
            entries = await self._threads.run_if_large(len(body) // speed, partial(parse, body, spec.entry))
        else:
            entries = Entries((await self._picture(body, media_type, spec))[None])
        return samples_of(spec, entries)

    async def pictures(self, parts: Iterable[tuple[str, bytes]], spec: ModelSpec) -> Entries:
        """Decode several pictures, given as (media type, content). A bad picture is the error of its entry only."""
        good: list[Array] = []
        errors: dict[int, InvalidInput] = {}
        for position, (media_type, content) in enumerate(parts):
            try:
                good.append(await self._picture(content, media_type, spec))
            except InvalidInput as err:
                errors[position] = err.alone()
        return stacked(good, errors, spec.entry)

    async def _picture(self, content: bytes, media_type: str, spec: ModelSpec) -> Array:
        """Decode one picture into one entry. Raises InvalidInput."""
        entry = self._entry(content, media_type, spec)
        if isinstance(entry, Image.Image):
            assert spec.picture
            return await self._threads.run(partial(spec.picture, entry))
        return entry

    def _entry(self, content: bytes, media_type: str, spec: ModelSpec) -> Array | Image.Image:
        """Decode one picture into one entry, or return it opened but not decoded if it has too many pixels.

        Raises InvalidInput.
        """
        assert spec.picture
        if spec.grey is not None and media_type in _MAYBE_PNG:
            pixels = read_plain_png(content)
            if pixels is not None and pixels.size <= self._max_pixels and (entry := spec.grey(pixels)) is not None:
                return entry
        picture = open_picture(content, media_type, self._max_pixels)
        return spec.picture(picture) if picture.width * picture.height <= _INLINE_PIXELS else picture
