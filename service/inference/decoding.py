"""Decode a request body into the samples of a model, by its media type. No HTTP in this module."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from models.coding import Coder, Given
from models.entries import (
    HOW_TO_SEND_PICTURES,
    Entries,
    checked,
    from_json,
    from_npy,
    from_picture,
    from_segments,
    inputs_in,
    picture_or_entry,
    stacked,
)
from models.errors import InvalidInput, MalformedInput
from models.pictures import PICTURE_FORMATS, format_of, open_picture
from models.segments import Place
from models.signature import Picture
from models.spec import Array, ModelSpec
from service.errors import Invalid, UnsupportedMediaType
from service.execution.threads import INLINE_BYTES, Threads
from service.inference import named
from service.media_types import JSON, MULTIPART, NPY, NPZ, OCTETS, may_be_picture

_ARRAYS = {JSON: (from_json, 1), NPY: (from_npy, 16)}  # parser, and its speed as a multiple of the JSON parser's
_WRONG_FORMS = {"Wrong body", "Wrong inputs", "Wrong sample"}
_NAMED_COST = 8  # of coding named inputs, a byte, as a multiple of the JSON parser's
_INLINE_PIXELS = 102_400  # a larger picture is decoded in a thread
_PICTURES = {*PICTURE_FORMATS, OCTETS, ""}


def media_types(spec: ModelSpec) -> list[str]:
    """Return the media types that a model accepts, the most convenient first."""
    if spec.inputs:
        return named.media_types(spec)
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
    """A decoded body: good samples (k, ...), the error of each other sample by its position, and the total count.

    `entries` are the good samples as they were checked, before `preprocess` or `encode`.
    `places` are those of all samples, if they are segments of one picture.
    """

    good: Any  # a Batch: an array, or Columns of a model with named inputs
    errors: Mapping[int, InvalidInput]
    count: int
    entries: Array | Sequence[Given]
    places: Sequence[Place] = ()


def samples_of(spec: ModelSpec, entries: Entries) -> Samples:
    """Preprocess the good entries. Raises the first entry's InvalidInput if no entry is good, naming it if it is one
    of several.
    """
    if not len(entries.good):
        raise _first_of(entries.errors)
    return Samples(spec.preprocess(entries.good), entries.errors, len(entries), entries.good)


def require_all(errors: Mapping[int, InvalidInput], way_out: str = "") -> None:
    """Raise the first error, with the position of its sample: for bodies and answers that cannot hold errors."""
    if errors:
        position = min(errors)
        error = errors[position]
        raise InvalidInput(error.title, f"sample {position}: {error.detail}{way_out}")


def _first_of(errors: Mapping[int, InvalidInput]) -> InvalidInput:
    """Return the error of a body whose samples are all bad: the first one, named if it is one of several."""
    error = errors[0]
    return error if len(errors) == 1 else InvalidInput(error.title, f"sample 0: {error.detail}")


def _array_samples(media_type: str, spec: ModelSpec, body: bytes) -> Samples:
    """Decode a body of numbers, and refuse the entries that do not look like the training data.

    If a model of pictures can read no entry of a JSON body, the error says how pictures are sent.
    """
    try:
        return samples_of(spec, checked(_ARRAYS[media_type][0](body, spec.tensor), spec.check))
    except InvalidInput as err:
        found = err.alone()  # without its traceback, which holds the body
    if spec.picture is not None:
        if isinstance(found, MalformedInput) and format_of(body):
            detail = f"the body is a picture, sent as {media_type}: declare it, for example as image/png"
            raise MalformedInput(found.title, detail)
        if media_type == JSON and found.title in _WRONG_FORMS and not isinstance(found, MalformedInput):
            raise InvalidInput(found.title, f"{found.detail}. {HOW_TO_SEND_PICTURES}")
    raise found


class Decoder:
    """Decodes bodies: small ones on the event loop, large ones in a thread."""

    def __init__(self, max_pixels: int, threads: Threads, max_bytes: int = 16 * 2**20) -> None:
        """`max_bytes` bounds what an .npz file unpacks to."""
        self._max_pixels = max_pixels
        self._threads = threads
        self._max_bytes = max_bytes

    def accepts(self, media_type: str, spec: ModelSpec) -> bool:
        """Whether `decode` supports the media type. Multipart forms are split by the caller: see `pictures`, `form`."""
        if spec.inputs:
            accepted = named.media_types(spec)
            return media_type != MULTIPART and (
                media_type in accepted or (OCTETS in accepted and _is_picture(media_type))
            )
        return media_type in _ARRAYS or (spec.picture is not None and _is_picture(media_type))

    def decodes_inline(self, media_type: str, spec: ModelSpec, size: int) -> bool:
        """Whether `decode_inline` can decode a body of `size` bytes without stalling the event loop.

        Only bodies of plain models can: see `ModelSpec.is_plain`.
        """
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

    async def decode(self, media_type: str, spec: ModelSpec, body: bytes, coder: Coder | None = None) -> Samples:
        """Decode a body of a media type that `accepts` names. Named inputs are coded by `coder`.

        Raises MalformedInput, or the InvalidInput of a body without a good sample.
        """
        if coder is not None and spec.inputs:
            return await self._coded(len(body), coder, partial(self._named, media_type, coder, body))
        if media_type in _ARRAYS:
            size = len(body) // _ARRAYS[media_type][1]
            return await self._threads.run_if_large(size, partial(_array_samples, media_type, spec, body))
        entries = Entries((await self._picture(body, spec))[None])
        return await self._threads.run_if_large(entries.good.nbytes, partial(samples_of, spec, entries))

    def require_segments(self, media_type: str, spec: ModelSpec) -> None:
        """Raise Invalid unless the model reads the segments of a picture, and the body is declared as one."""
        if spec.segments is None:
            raise Invalid("this model reads no segments of a picture: leave out segment")
        if not _is_picture(media_type):
            raise Invalid("segment=true takes one picture: send the bytes of its file as the body")

    async def segments(self, spec: ModelSpec, body: bytes) -> Samples:
        """Decode the samples in one picture, in reading order. Raises the InvalidInput of one without a good sample."""
        entries, places = await self._threads.run(lambda: from_segments(self._opened(body), spec))
        return replace(samples_of(spec, entries), places=places)

    async def form(self, fields: Sequence[named.Field], coder: Coder) -> Samples:
        """Decode a form with the fields of named inputs. Raises the InvalidInput of a form without a good sample."""
        size = sum(len(field.content) for field in fields)
        return await self._coded(size, coder, lambda: self._samples(named.from_form(fields, coder.spec), coder))

    async def rows(self, size: int, read: Callable[[], Iterable[object]], coder: Coder) -> Samples:
        """Decode `size` bytes that `read` turns into values by name, one mapping a sample. All samples must be good.

        Raises what `read` raises, or the InvalidInput of the first bad sample, with its position.
        """

        def decode() -> Samples:
            good, errors, given = named.coded(read(), coder, self._opened)
            require_all(errors)
            return Samples(good, {}, len(given), given)

        return await self._coded(size, coder, decode)

    async def pictures(self, contents: Iterable[bytes], spec: ModelSpec) -> Entries:
        """Decode several pictures. A bad picture is the error of its entry only."""
        good: list[Array] = []
        errors: dict[int, InvalidInput] = {}
        for position, content in enumerate(contents):
            try:
                good.append(await self._picture(content, spec))
            except InvalidInput as err:
                errors[position] = err.alone()
        return stacked(good, errors, spec.tensor)

    def pictures_inline(self, contents: Iterable[bytes], spec: ModelSpec) -> Entries | None:
        """Decode several small pictures on the event loop; None if one is too large and needs a thread."""
        good: list[Array] = []
        errors: dict[int, InvalidInput] = {}
        for position, content in enumerate(contents):
            try:
                entry = self._entry(content, spec)
            except InvalidInput as err:
                errors[position] = err.alone()
                continue
            if isinstance(entry, Image.Image):
                return None
            good.append(entry)
        return stacked(good, errors, spec.tensor)

    async def _coded(self, size: int, coder: Coder, decode: Callable[[], Samples]) -> Samples:
        """Call `decode`, in a thread unless the body is small and has no pictures."""
        has_pictures = any(isinstance(kind, Picture) for kind in coder.spec.inputs.values())
        return await self._threads.run_if_large(INLINE_BYTES + 1 if has_pictures else _NAMED_COST * size, decode)

    def _named(self, media_type: str, coder: Coder, body: bytes) -> Samples:
        """Decode a body of named inputs."""
        rows: Sequence[object]
        if media_type == JSON:
            rows = inputs_in(body)
        elif media_type == NPZ:
            rows = named.from_npz(body, self._max_bytes)
        elif media_type == NPY:
            rows = named.from_npy(body, coder.spec)
        else:
            rows = named.from_picture(body, coder.spec)
        return self._samples(rows, coder)

    def _samples(self, rows: Iterable[object], coder: Coder) -> Samples:
        good, errors, given = named.coded(rows, coder, self._opened)
        if good is None:
            raise _first_of(errors)
        return Samples(good, errors, len(given) + len(errors), given)

    def _opened(self, content: bytes) -> Image.Image:
        return open_picture(content, self._max_pixels)

    async def _picture(self, content: bytes, spec: ModelSpec) -> Array:
        """Decode one picture into one entry. Raises InvalidInput."""
        if len(content) > INLINE_BYTES:
            return await self._threads.run(lambda: from_picture(self._opened(content), spec))
        entry = self._entry(content, spec)
        if isinstance(entry, Image.Image):
            return await self._threads.run(partial(from_picture, entry, spec))
        return entry

    def _entry(self, content: bytes, spec: ModelSpec) -> Array | Image.Image:
        """Decode one picture into one entry, or return it opened but not decoded if it has too many pixels.

        Raises InvalidInput.
        """
        found = picture_or_entry(content, spec, self._max_pixels)
        if isinstance(found, Image.Image) and found.width * found.height <= _INLINE_PIXELS:
            return from_picture(found, spec)
        return found
