"""One request's body -> the model's samples, by its media type."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from PIL import Image
from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from models.errors import InvalidInput
from models.pictures import PICTURE_FORMATS, open_picture
from models.spec import Array, ModelSpec
from service.errors import UnsupportedMediaType
from service.execution.threads import INLINE_BYTES, T
from service.inference.arrays import Entries, from_json, from_npy, stacked
from service.inference.png import read_plain_png
from service.media_types import JSON, MULTIPART, NPY, OCTETS, plain
from service.web.bodies import header, read_body
from service.web.compression import inflate
from service.web.multipart import files

_ARRAYS = {JSON: (from_json, 1), NPY: (from_npy, 16)}  # how to read each, and how many times faster than JSON that is
_INLINE_PIXELS = 65_536  # likewise a larger picture
_PICTURES = {*PICTURE_FORMATS, OCTETS, ""}
_MAYBE_PNG = {"image/png", OCTETS, ""}

Decode = Callable[[bytes], Awaitable[Entries]]


def media_types(spec: ModelSpec) -> list[str]:
    """The media types that a model takes, the handiest first."""
    pictures = [*PICTURE_FORMATS, OCTETS, MULTIPART] if spec.picture else []
    return [*pictures, JSON, NPY]


@dataclass(frozen=True, slots=True)
class Samples:
    """What a body holds: good samples (k, ...), what is wrong with each other one by position, `count` in all."""

    good: Array
    errors: Mapping[int, InvalidInput]
    count: int


class BodyReader:
    """Reads and decodes request bodies within the limits."""

    def __init__(self, max_body_bytes: int, max_pixels: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._max_pixels = max_pixels
        # Two at a time: a picture of max_pixels takes over 100 MB while it is decoded.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="decode")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    async def samples(self, scope: Scope, receive: Receive, spec: ModelSpec) -> Samples:
        """The body of a request -> samples.

        Raises UnsupportedMediaType, TooLarge, Malformed, or the InvalidInput of a body with no good sample at all.
        """
        return await self.samples_of(scope, spec)(await self.read(scope, receive))

    def samples_of(self, scope: Scope, spec: ModelSpec) -> Callable[[bytes], Awaitable[Samples]]:
        """What turns the body of this request into samples, once it is there.

        Raises UnsupportedMediaType. What it returns raises Malformed, or the InvalidInput of a body with nothing good.
        """
        media_type = plain(header(scope, b"content-type").decode("latin-1"))
        return partial(self._samples, self._decoder(media_type, scope, spec), spec)

    async def _samples(self, decode: Decode, spec: ModelSpec, body: bytes) -> Samples:
        return _samples(spec, await decode(body))

    def takes_at_once(self, media_type: str, spec: ModelSpec, size: int) -> bool:
        """Whether `at_once` can read such bodies, of so many bytes: they take little time, and so no thread."""
        if size > self._max_body_bytes:
            return False
        if media_type in _ARRAYS:
            return size // _ARRAYS[media_type][1] <= INLINE_BYTES
        return spec.picture is not None and media_type in _PICTURES and size <= INLINE_BYTES

    def at_once(self, media_type: str, spec: ModelSpec, body: bytes) -> Samples | None:
        """A body that this `takes_at_once` -> samples, without a thread; None for a picture of so many pixels that it
        takes one. Raises Malformed, or the InvalidInput of a body with nothing good.
        """
        if media_type in _ARRAYS:
            return _samples(spec, _ARRAYS[media_type][0](body, spec.entry))
        entry = self._entry(body, media_type, spec)
        return None if isinstance(entry, Image.Image) else _samples(spec, Entries(entry[None]))

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises TooLarge, and ClientDisconnect where the caller has gone."""
        return await read_body(scope, receive, self._max_body_bytes)

    async def inflated(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, its Content-Encoding undone: the limit counts what comes out of it.

        Raises Malformed, TooLarge, UnsupportedMediaType.
        """
        body = await self.read(scope, receive)
        coding = header(scope, b"content-encoding").decode("latin-1").strip().lower()
        if coding in {"", "identity"}:
            return body
        return await self.in_thread(partial(inflate, body, coding, self._max_body_bytes))

    async def pictures(self, parts: Iterable[tuple[str, bytes]], spec: ModelSpec) -> Entries:
        """Media type and content of each picture -> entries; what cannot be read is an error of its own."""
        good: list[Array] = []
        errors: dict[int, InvalidInput] = {}
        for position, (media_type, content) in enumerate(parts):
            try:
                good.append(await self._read(content, media_type, spec))
            except InvalidInput as err:
                errors[position] = err.alone()
        return stacked(good, errors, spec.entry)

    async def off_the_loop(self, size: int, function: Callable[[], T]) -> T:
        """`function` of `size` bytes of data: in a thread where they are many."""
        return function() if size <= INLINE_BYTES else await self.in_thread(function)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """`function`, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _decoder(self, media_type: str, scope: Scope, spec: ModelSpec) -> Decode:
        if media_type in _ARRAYS:
            return partial(self._array, *_ARRAYS[media_type], spec)
        if spec.picture and media_type == MULTIPART:
            return partial(self._multipart, Headers(scope=scope), spec)
        if spec.picture and media_type in _PICTURES:
            return partial(self._picture, media_type, spec)
        sent = repr(media_type) if media_type else "no Content-Type"
        raise UnsupportedMediaType(f"the body came with {sent}; send one of {', '.join(media_types(spec))}")

    async def _array(self, decode: Callable[..., Entries], faster: int, spec: ModelSpec, content: bytes) -> Entries:
        return await self.off_the_loop(len(content) // faster, partial(decode, content, spec.entry))

    async def _picture(self, media_type: str, spec: ModelSpec, content: bytes) -> Entries:
        return Entries((await self._read(content, media_type, spec))[None])

    async def _read(self, content: bytes, media_type: str, spec: ModelSpec) -> Array:
        """One picture -> one entry. Raises InvalidInput."""
        entry = self._entry(content, media_type, spec)
        if isinstance(entry, Image.Image):
            assert spec.picture
            return await self.in_thread(partial(spec.picture, entry))
        return entry

    def _entry(self, content: bytes, media_type: str, spec: ModelSpec) -> Array | Image.Image:
        """One picture -> one entry; a picture of so many pixels that a thread should read it is opened only.

        Raises InvalidInput.
        """
        assert spec.picture
        if spec.grey is not None and media_type in _MAYBE_PNG:
            pixels = read_plain_png(content)
            if pixels is not None and pixels.size <= self._max_pixels and (entry := spec.grey(pixels)) is not None:
                return entry
        picture = open_picture(content, media_type, self._max_pixels)
        return spec.picture(picture) if picture.width * picture.height <= _INLINE_PIXELS else picture

    async def _multipart(self, headers: Headers, spec: ModelSpec, content: bytes) -> Entries:
        return await self.pictures(await files(headers, content), spec)


def _samples(spec: ModelSpec, entries: Entries) -> Samples:
    if not len(entries.good):
        raise next(iter(entries.errors.values()))
    return Samples(spec.preprocess(entries.good), entries.errors, len(entries))
